"""What every analysis owes the report, over experiments of every shape."""

import re
import time

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.cm import ScalarMappable

from analyses.plotting import theme
from analyses.registry import run_all
from gradflow import train_and_trace
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import open_experiment


def full(build, seeds=(2025,), epochs=10, own_images=False, **options):
    generator = np.random.default_rng(0)
    plans = []
    for network, share in (("plain8", None), ("resnet8", 0.6)):
        for seed in seeds:
            right = generator.random((epochs, 60)) < np.linspace(0.3, 0.8, epochs)[:, None]
            fresh = generator.random((epochs, 60)) < 0.7
            tables = {"right": right, "recalibrated": fresh, "skip_share": share}
            tables["first_image"] = 100 * seed if own_images else 0
            plans.append(build.plan(network, seed, epochs=epochs, **tables, **options))
    return build.experiment(*plans)


def traced(build):
    """A run recorded through the Tracer: no predictions, no seed, no classes."""
    return build.experiment(build.plan("mine", seed=None, classes=[]))


def bare(build):
    return build.experiment(build.plan("mine", without=("layers", "epochs", "parameters")))


def broken(build):
    return full(build, factor=float("nan"), noise=float("nan"))


def recorded(build):
    """Two small networks trained on the digits, with every probe."""
    options = ["--models", "plain20", "resnet20", "--epochs", "3", "--out", str(build.folder)]
    assert train_and_trace.main(options) == 0
    return open_experiment(build.folder)


SHAPES = {
    "full": full,
    "seeds": lambda build: full(build, seeds=(1, 2, 3), epochs=4, steps=4),
    "seeds with a split each": lambda build: full(
        build, seeds=(1, 2, 3), epochs=4, steps=4, own_images=True
    ),
    "one epoch": lambda build: full(build, epochs=1, steps=2),
    "traced": traced,
    "bare": bare,
    "not a number": broken,
}


@pytest.fixture(scope="module", params=[*SHAPES, pytest.param("recorded", marks=pytest.mark.slow)])
def experiment(request, build_for_all):
    return SHAPES.get(request.param, recorded)(build_for_all())


@pytest.fixture(scope="module")
def outcomes(experiment):
    return run_all(experiment)


def test_no_analysis_fails(outcomes):
    assert {outcome.key: outcome.failure for outcome in outcomes if outcome.failure} == {}
    assert all(bool(outcome.result) != bool(outcome.not_applicable) for outcome in outcomes)


def test_every_figure_draws_at_the_width_of_the_column(outcomes):
    for outcome in outcomes:
        for figure in outcome.result.figures if outcome.result else ():
            drawn = figure.draw()
            assert drawn.get_size_inches()[0] == pytest.approx(theme.WIDTH)
            assert figure.title
            assert figure.caption
            assert figure.alt
            assert re.fullmatch(r"[A-Za-z0-9-]+", figure.key)
            for axis in drawn.axes[:1]:
                assert axis.get_xlabel() or len(drawn.axes) > 1
            for mapped in drawn.findobj(is_mapped):
                assert is_told_in_grey(mapped.cmap), (figure.key, mapped.cmap.name)


def is_mapped(artist):
    """Whether an artist shows values by a colour map; a photograph has its own colours."""
    values = artist.get_array() if isinstance(artist, ScalarMappable) else None
    return values is not None and np.ndim(values) < 3


def is_told_in_grey(colour_map):
    """Whether a colour map only brightens, or only darkens: WCAG 2's relative luminance."""
    channels = colour_map(np.linspace(0, 1, 64))[:, :3]
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    steps = np.diff(linear @ [0.2126, 0.7152, 0.0722])
    return (steps > 0).all() or (steps < 0).all()


def test_a_map_with_two_dark_ends_is_not_told_in_grey():
    assert is_told_in_grey(mpl.colormaps["viridis"])
    assert not is_told_in_grey(mpl.colormaps["PuOr"])


def test_findings_are_complete_and_their_numbers_plain(outcomes):
    for outcome in outcomes:
        for finding in outcome.result.findings if outcome.result else ():
            assert finding.estimates
            assert finding.threshold
            assert finding.next_step
            assert finding.caveats
            assert finding.meaning.endswith(".")
            assert not re.search(r"\bnan\b|\binf\b|None", finding.meaning)
            for estimate in finding.estimates:
                for value in (estimate.value, estimate.low, estimate.high):
                    assert value is None or (type(value) is float and np.isfinite(value))
                assert estimate.low is not None or estimate.method


def test_keys_are_unique_within_an_analysis(outcomes):
    for outcome in outcomes:
        if outcome.result:
            for things in (outcome.result.findings, outcome.result.figures, outcome.result.tables):
                keys = [thing.key for thing in things]
                assert len(keys) == len(set(keys))


def test_every_finding_names_what_shows_it(outcomes):
    for result in results(outcomes):
        shown = {thing.key for thing in (*result.figures, *result.tables)}
        for finding in result.findings:
            assert finding.evidence
            assert set(finding.evidence) <= shown


def test_findings_on_one_topic_share_a_statement_that_names_no_network(outcomes, experiment):
    for result in results(outcomes):
        asked = [(finding.topic, finding.network) for finding in result.findings]
        assert len(asked) == len(set(asked))
        statements = {}
        for finding in result.findings:
            assert (finding.statement == "") is (finding.network is None)
            assert statements.setdefault(finding.topic, finding.statement) == finding.statement
            assert not names_in(finding.statement, experiment)


def test_texts_that_networks_share_name_none(outcomes, experiment):
    for result in results(outcomes):
        for finding in result.findings:
            texts = [finding.threshold, finding.contradicted_by, finding.next_step]
            texts += [*finding.caveats, *(one.method for one in finding.estimates)]
            for text in texts if finding.network else ():
                assert not names_in(text, experiment)


def test_a_sentence_on_all_networks_names_each_of_them(outcomes):
    for result in results(outcomes):
        for topic, text in result.together.items():
            networks = {one.network for one in result.findings if one.topic == topic}
            assert networks
            said = text.startswith(("In both networks", f"In all {len(networks)} networks"))
            assert said or all(name in text for name in networks)


def test_texts_are_clean(outcomes):
    for result in results(outcomes):
        sentences = [result.summary, result.method, *result.together.values()]
        for one in result.findings:
            sentences += [one.hypothesis, one.contradicted_by, one.meaning, one.next_step]
            sentences += [one.statement or one.hypothesis, *one.caveats]
        for one in result.figures:
            sentences += [one.caption]
        clauses = [one.threshold for one in result.findings]
        clauses += [one.title for one in (*result.figures, *result.tables)]
        clauses += [each.method for one in result.findings for each in one.estimates]
        for text in sentences:
            assert text.endswith(".")
        for text in (*sentences, *clauses):
            assert not re.search(r"\bnan\b|\binf\b|\bNone$|  | [,;.:]|\.\.|\(\)", text)


def results(outcomes):
    return [outcome.result for outcome in outcomes if outcome.result]


def names_in(text, experiment):
    return [
        name for name in experiment.networks if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    ]


def test_a_network_has_one_colour_in_all_figures():
    assert (
        theme.colours(["plain34", "resnet34"])["resnet34"]
        == theme.colours(["plain34", "resnet34", "mine"])["resnet34"]
    )
    assert len(set(theme.colours(list("abcdef")).values())) == 6


def test_drawing_leaves_the_global_settings_alone(build):
    before = dict(mpl.rcParams)
    for outcome in run_all(traced(build)):
        for figure in outcome.result.figures if outcome.result else ():
            figure.draw()
    assert dict(mpl.rcParams) == before


def test_all_analyses_of_two_deep_runs_take_seconds(build):
    generator = np.random.default_rng(0)
    right = generator.random((10, 245)) < 0.5
    plans = [
        build.plan(name, convolutions=34, epochs=10, steps=30, right=right, recalibrated=right)
        for name in ("plain34", "resnet34")
    ]
    experiment = build.experiment(*plans)
    start = time.perf_counter()
    run_all(experiment)
    assert time.perf_counter() - start < 6


@pytest.mark.parametrize("ahead", ["epochs", "other tables", "first run"])
def test_no_analysis_fails_on_a_run_that_is_being_written(build, ahead):
    """Tables appear one after the other, so that for a moment some are an epoch ahead."""
    experiment = full(build, epochs=4)
    for place, run in enumerate(experiment.runs):
        for name in TABLES:
            frame = run.table(name)
            if "epoch" in frame:
                first = {"epochs": name == "epochs", "other tables": name != "epochs"}
                last = 4 * (1 - place) if ahead == "first run" else 1 + first[ahead]
                run._tables[name] = frame[frame["epoch"] <= last]
    outcomes = run_all(experiment)
    assert {outcome.key: outcome.failure for outcome in outcomes if outcome.failure} == {}
    for outcome in outcomes:
        for figure in outcome.result.figures if outcome.result else ():
            figure.draw()
