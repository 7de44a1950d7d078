"""Experiments are compared run by run: which with which, what is said, and what is not compared."""

import numpy as np
import pytest

from analyses.comparison.combination import combine
from analyses.comparison.question import ANALYSIS, pair_runs
from analyses.comparison.runs import compare_runs
from analyses.registry import NotApplicableError, run_all
from gradflow.errors import ConfigurationError


@pytest.fixture
def compared(build, tmp_path):
    """Puts experiments together, each given as its plans."""

    def put_together(**plans):
        parts = [type(build)(tmp_path / name).experiment(*of) for name, of in plans.items()]
        return combine(parts, tmp_path / "out")

    return put_together


def pairs_of(experiment):
    return [
        (name, first.folder.name, second.folder.name)
        for name, first, second in pair_runs(*experiment.members)
    ]


def test_a_planted_change_is_found_in_its_network_and_nowhere_else(build, compared):
    plans = [build.plan(name, steps=40) for name in ("plain8", "plain6")]
    experiment = compared(a=plans, b=plans)
    grown = experiment.members[1].runs[1]
    noise = np.exp(0.1 * np.random.default_rng(0).standard_normal(len(grown.gradients)))
    grown._tables["gradients"] = grown.gradients.assign(rms=0.5 * 3 * noise)
    result = ANALYSIS.run(experiment)
    verdicts = {finding.network: str(finding.verdict) for finding in result.findings}
    assert verdicts == {"plain8": "contradicted", "plain6": "supported"}
    assert len({finding.topic for finding in result.findings}) == 1
    assert {finding.statement for finding in result.findings} == {
        "b differs from a at some layer by more than the margins."
    }
    alone = compare_runs(experiment.members[0].runs[1], experiment.members[1].runs[1])
    assert result.findings[1].estimates == alone.findings[0].estimates
    assert result.findings[1].meaning.startswith("plain6 (b) differs from plain6 (a)")


def test_evidence_names_figures_and_tables_that_are_there_and_every_figure_draws(build, compared):
    plans = [build.plan(seed=seed) for seed in (1, 2)]
    result = ANALYSIS.run(compared(a=plans, b=plans, c=plans))
    keys = [part.key for part in (*result.figures, *result.tables)]
    assert len(set(keys)) == len(keys)
    named = {key for finding in result.findings for key in finding.evidence}
    assert named < set(keys)
    assert len(result.figures) == 2  # of the first seed, for b and for c against a
    for figure in result.figures:
        figure.draw()


def test_runs_of_equal_network_and_seed_are_paired_and_the_others_named(build, compared):
    first = [build.plan("plain8", seed=seed) for seed in (1, 2)]
    second = [build.plan("plain8", seed=seed) for seed in (2, 3)]
    experiment = compared(a=first, b=second)
    assert pairs_of(experiment) == [("plain8 seed 2", "plain8-seed2", "plain8-seed2")]
    (finding,) = ANALYSIS.run(experiment).findings
    assert any("plain8-seed1 and plain8-seed3" in caveat for caveat in finding.caveats)
    table = ANALYSIS.run(experiment).tables[-1].frame
    assert list(table["verdict"]) == ["contradicted", "no partner", "no partner"]


def test_two_single_runs_are_compared_whatever_they_are(build, compared):
    experiment = compared(a=[build.plan("plain8", seed=1)], b=[build.plan("plain6", seed=2)])
    assert pairs_of(experiment) == [("plain6 against plain8", "plain8-seed1", "plain6-seed2")]
    (finding,) = ANALYSIS.run(experiment).findings
    assert any("The seeds differ (1 and 2)" in caveat for caveat in finding.caveats)


def test_other_images_are_a_caveat(build, compared):
    experiment = compared(a=[build.plan()], b=[build.plan()])
    run = experiment.members[1].runs[0]
    run._tables["images"] = run.images.assign(fingerprint="other")
    (finding,) = ANALYSIS.run(experiment).findings
    assert finding.caveats[0].startswith("The images of a and b differ")


def test_one_pair_that_cannot_be_compared_costs_the_others_nothing(build, compared):
    plans = [build.plan("plain8"), build.plan("plain6")]
    empty = build.plan("plain6", without=("gradients", "activations", "parameters"))
    result = ANALYSIS.run(compared(a=plans, b=[plans[0], empty]))
    assert [finding.network for finding in result.findings] == ["plain8"]
    assert list(result.tables[-1].frame["verdict"]) == ["contradicted", "not compared"]
    assert "cannot be compared" in result.tables[-1].frame["compared"].iloc[1]


def test_options_are_told_once_without_the_network(build, compared):
    plans = [[build.plan(configuration={"lr": lr, "x": lr})] for lr in (0.1, 0.2)]
    options = ANALYSIS.run(compared(a=plans[0], b=plans[1])).tables[0].frame
    assert options.to_dict("records") == [
        {"option": "lr", "a": "0.1", "b": "0.2"},
        {"option": "x", "a": "0.1", "b": "0.2"},
    ]


def test_without_a_pair_it_says_why(build, compared):
    plans = {
        "a": [build.plan("plain8", seed=1), build.plan("plain8", seed=2)],
        "b": [build.plan("plain8", seed=3), build.plan("plain8", seed=4)],
    }
    with pytest.raises(NotApplicableError, match="no common network with equal seeds"):
        ANALYSIS.run(compared(**plans))


def test_it_is_asked_only_where_several_experiments_were_put_together(build, compared):
    together = compared(a=[build.plan()], b=[build.plan()])
    assert [one.key for one in run_all(together, ["what_changed"])] == ["what_changed"]
    with pytest.raises(NotApplicableError, match="a single experiment"):
        ANALYSIS.run(together.members[0])
    with pytest.raises(ConfigurationError, match="there is no analysis 'what_changed'"):
        run_all(together.members[0], ["what_changed"])
