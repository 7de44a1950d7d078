"""Reports on a language model of many blocks show groups and outliers, not each layer."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from analyses.registry import Outcome, run_all
from analyses.result import Length
from gradflow.runs.reading.run import Experiment, open_experiment
from reports.building import make_report, write_report
from reports.elements import Document
from reports.formats import parse_formats

SOURCE = Path(__file__).parents[2] / "benchmarks" / "language_model.py"
SPEC = importlib.util.spec_from_file_location("language_model", SOURCE)
language_model = importlib.util.module_from_spec(SPEC)
sys.modules["language_model"] = language_model
SPEC.loader.exec_module(language_model)

BLOCKS = 40
PLANTED = 17
MOST_ROWS = 60  # of any table
MOST_LABELS = 45  # of any axis: a page has no room for more
MOST_MEGABYTES = {"html": 4, "pdf": 3, "json": 0.3, "md": 0.06}


def enlarge_a_block(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.blocks[PLANTED].parameters():
            parameter.mul_(100)


@dataclass(frozen=True)
class Made:
    """An experiment, what the analyses say of it, its report, and the folder of its files."""

    experiment: Experiment
    outcomes: dict[str, Outcome]
    document: Document
    folder: Path


def make(folder: Path, blocks: int, **options) -> Made:
    language_model.train(language_model.Size(blocks=blocks), folder / "run", **options)
    experiment = open_experiment(folder / "run")
    report = make_report(experiment, length=Length.FULL)
    write_report(report, parse_formats("html,pdf,json,md"), folder)
    outcomes = {outcome.key: outcome for outcome in report.outcomes}
    return Made(experiment, outcomes, report.document, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("many")
    return make(folder, BLOCKS, epochs=2, steps=3, change=enlarge_a_block)


def assert_readable(made: Made) -> None:
    assert {
        outcome.key: outcome.failure for outcome in made.outcomes.values() if outcome.failure
    } == {}
    tables = [
        table
        for section in made.document.sections
        for part in (section, *section.claims)
        for table in part.tables
    ]
    assert max(len(table.rows) for table in tables) <= MOST_ROWS
    for one, most in MOST_MEGABYTES.items():
        assert (made.folder / f"report.{one}").stat().st_size < 1e6 * most


def labels_of(drawing) -> int:
    """The most labels that an axis of `drawing` has."""
    drawing.canvas.draw()
    axes = [side for axis in drawing.axes for side in (axis.xaxis, axis.yaxis)]
    return max(sum(bool(label.get_text()) for label in side.get_ticklabels()) for side in axes)


def test_tables_and_files_are_of_a_size_that_can_be_read(made):
    assert len(made.experiment.runs[0].layers) > 12 * BLOCKS
    assert_readable(made)


def test_every_figure_has_few_labels(made):
    figures = [
        figure for one in made.outcomes.values() if one.result for figure in one.result.figures
    ]
    assert len(figures) > 10
    for figure in figures:
        assert labels_of(figure.draw()) <= MOST_LABELS, figure.key


def test_each_projection_of_all_blocks_is_one_row(made):
    tables = {table.key: table.frame for table in made.outcomes["outliers"].result.tables}
    weights = tables["parameters-weight-norm"].set_index("group")
    names = [
        name for name, _ in language_model.LanguageModel(language_model.Size(2)).named_parameters()
    ]
    inside = {name.replace("blocks.0", "blocks.*") for name in names if "blocks.0." in name}
    assert set(weights.index) == {*inside, *(name for name in names if "blocks" not in name)}
    assert (weights.loc[sorted(inside), "members"] == BLOCKS).all()
    assert len(tables["gradients-rms"]) == len(tables["activations-rms"]) == 15


def test_medians_and_ranges_of_a_group_are_those_of_the_table(made):
    frame = made.experiment.runs[0].parameters
    last = frame[(frame["epoch"] == 2) & frame["parameter"].str.endswith("attn.q.weight")]
    by_block = last.groupby("parameter")["weight_norm"].median()
    tables = {table.key: table.frame for table in made.outcomes["outliers"].result.tables}
    row = tables["parameters-weight-norm"].set_index("group").loc["blocks.*.attn.q.weight"]
    assert row["median"] == pytest.approx(by_block.median())
    assert row["lowest"] == pytest.approx(by_block.min())
    assert row["highest"] == pytest.approx(by_block.max())


def test_enlarged_block_is_named_as_outlier_by_every_weight(made):
    result = made.outcomes["outliers"].result
    (finding,) = result.findings
    assert finding.verdict == "supported"
    assert f"blocks.{PLANTED}." in finding.meaning
    weights = {table.key: table.frame for table in result.tables}["parameters-weight-norm"]
    groups = weights[weights["members"] == BLOCKS]
    assert (groups["outliers"] == 1).all()
    # The planted factor, up to how far the block's weights differ from the median without it.
    assert (groups["highest"] / groups["median"]).between(50, 200).all()


def test_what_is_farthest_is_on_the_page_with_where_the_rest_is(made):
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    outliers = {table.key: table for table in made.outcomes["outliers"].result.tables}["outliers"]
    assert len(outliers.frame) == 20
    assert "20 of the" in outliers.title
    assert outliers.frame["name"].str.startswith(f"blocks.{PLANTED}.").sum() > 10
    for text in (outliers.title, outliers.frame["name"].iloc[0], "The run folder holds the values"):
        assert text in page
    found = json.loads((made.folder / "report.json").read_text(encoding="utf-8"))
    assert f"blocks.{PLANTED}." in json.dumps(found)


def test_figures_by_depth_gather_layers_by_whole_blocks(made):
    captions = {
        figure.key: figure.caption
        for key in ("overview", "gradient_profile")
        for figure in made.outcomes[key].result.figures
    }
    for key in ("norm-by-depth", "norm-map"):
        assert "successive ones are shown together, up to 7" in captions[key]
    assert "successive ones are shown together, up to 9" in captions["overview"]  # has fewer rows
    assert "horizontal lines" not in captions["overview"]


def test_network_of_few_layers_is_not_grouped(tmp_path):
    language_model.train(language_model.Size(blocks=3), tmp_path / "run", epochs=1, steps=2)
    (outcome,) = run_all(open_experiment(tmp_path / "run"), ["outliers"])
    assert outcome.result is None
    assert "no network counts more than 100 layers" in outcome.not_applicable


@pytest.mark.slow
def test_a_model_of_three_thousand_parameters_is_traced_and_reported(tmp_path):
    made = make(tmp_path, 250, epochs=2, steps=3, change=enlarge_a_block)
    run = made.experiment.runs[0]
    assert run.parameters["parameter"].nunique() > 3000
    assert len(run.layers) > 3000
    assert run.activations.groupby("step")["layer"].nunique().eq(len(run.layers)).all()
    assert_readable(made)
    (finding,) = made.outcomes["outliers"].result.findings
    assert f"blocks.{PLANTED}." in finding.meaning
