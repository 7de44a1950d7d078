"""Planted vanishing, exploding and healthy gradients get the right class."""

import pandas as pd
import pytest

from analyses.gradients.profile.question import ANALYSIS, flow_findings, run
from analyses.gradients.profile.tables import classify_interval
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from gradflow.runs.reading.run import open_experiment


def verdicts(findings):
    return {finding.topic: finding.verdict for finding in findings}


@pytest.mark.parametrize(
    ("factor", "dead", "answer"),
    [
        (0.4, 0.0, "vanish"),
        (1.0, 0.0, "healthy"),
        (2.5, 0.0, "explode"),
        (1.0, 1.0, "dead"),
    ],
)
def test_planted_gradients_get_the_right_answer(build, factor, dead, answer):
    experiment = build.experiment(build.plan(factor=factor, noise=0.2, dead_fraction=dead))
    expected = dict.fromkeys(("vanish", "explode", "dead", "healthy"), Verdict.CONTRADICTED)
    assert verdicts(flow_findings(experiment)) == expected | {answer: Verdict.SUPPORTED}
    printed = verdicts(ANALYSIS.run(experiment).findings)
    assert printed.items() <= (expected | {answer: Verdict.SUPPORTED}).items()
    assert list(printed) == ["vanish", "explode"]


@pytest.mark.parametrize(
    ("autocorrelation", "verdict"), [(0.01, Verdict.SUPPORTED), (0.9, Verdict.CONTRADICTED)]
)
def test_a_recorded_gradient_along_lines_answers_shattered(build, autocorrelation, verdict):
    experiment = build.experiment(build.plan())
    write_lines(experiment, {1: 0.9, 3: autocorrelation})
    experiment = open_experiment(experiment.folder)
    assert verdicts(flow_findings(experiment))["shattered"] is verdict
    result = ANALYSIS.run(experiment)
    by_epoch = list(result.tables[1].frame["gradients are"])
    shattered = verdict is Verdict.SUPPORTED
    assert by_epoch == ["healthy", "healthy", "shattered" if shattered else "healthy"]


def write_lines(experiment, values):
    folder = experiment.runs[0].folder / "shattering"
    folder.mkdir()
    rows = [
        {"epoch": epoch, "layer": layer, "lag": lag, "points": 256, "autocorrelation": value}
        for epoch, one in values.items()
        for layer, near in (("conv1", 0.6), ("(input)", one))
        for lag, value in ((0, 1.0), (1, near), (2, 0.0))
    ]
    pd.DataFrame(rows).to_parquet(folder / "part-0000000000-0000000029.parquet")


def test_gradients_of_weights_stand_beside_those_of_outputs(build):
    result = ANALYSIS.run(build.experiment(build.plan(factor=0.4)))
    estimates = {one.name: one.value for one in result.findings[0].estimates}
    factor_over_depth = "factor of the gradient norm from the last layer to the first"
    assert estimates[factor_over_depth] == pytest.approx(0.4**8)
    (beside,) = (value for name, value in estimates.items() if "of the weights" in name)
    assert 0.3 < beside < 3  # planted level, with a noise of a tenth


def test_a_dead_layer_is_the_answer_of_each_epoch(build):
    result = ANALYSIS.run(build.experiment(build.plan(dead_fraction=1.0)))
    assert list(result.tables[1].frame["gradients are"]) == ["dead"] * 3


def test_thresholds_are_arguments(build):
    experiment = build.experiment(build.plan(factor=0.9, noise=0.05))
    assert verdicts(run(experiment).findings)["vanish"] is Verdict.CONTRADICTED
    assert verdicts(run(experiment, vanishing=0.9).findings)["vanish"] is Verdict.SUPPORTED


def test_one_step_gives_no_interval_and_no_verdict(build):
    experiment = build.experiment(build.plan(factor=0.4, epochs=1, steps=1))
    findings = flow_findings(experiment)
    found = verdicts(findings)
    assert found["vanish"] is found["explode"] is found["healthy"] is Verdict.INCONCLUSIVE
    factor_over_depth, per_layer = findings[0].estimates[:2]
    assert factor_over_depth.value == pytest.approx(0.4**8)
    assert per_layer.value == pytest.approx(0.4)
    assert factor_over_depth.low is per_layer.low is None


def test_three_seeds_give_an_interval_over_seeds(build):
    plans = [build.plan(seed=seed, factor=0.5, noise=0.1) for seed in (1, 2, 3)]
    result = ANALYSIS.run(build.experiment(*plans))
    assert "3 seeds" in result.findings[0].estimates[0].method


def test_gradients_that_are_exactly_zero_are_a_caveat_and_not_vanishing(build):
    result = ANALYSIS.run(build.experiment(build.plan(factor=0.0)))
    finding = result.findings[0]
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "87.5 % of the recorded gradients are exactly zero" in " ".join(finding.caveats)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_give_no_factor(build, factor):
    experiment = build.experiment(build.plan(factor=factor))
    found = verdicts(flow_findings(experiment))
    assert found["vanish"] is found["explode"] is found["healthy"] is Verdict.INCONCLUSIVE
    for figure in ANALYSIS.run(experiment).figures:
        figure.draw()


def test_without_gradients_it_does_not_apply(build):
    experiment = build.experiment(build.plan(without=("gradients",)))
    with pytest.raises(NotApplicableError, match="gradients"):
        ANALYSIS.run(experiment)


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (0.1, 0.2, "vanishing"),
        (0.1, 0.6, "unclear"),
        (0.6, 0.9, "healthy"),
        (2.5, 3.0, "exploding"),
        (None, None, "unclear"),
    ],
)
def test_classes_follow_the_interval(low, high, state):
    assert classify_interval(low, high, 0.5, 2.0) == state


def test_epochs_are_listed_with_their_class(build):
    result = ANALYSIS.run(build.experiment(build.plan(factor=0.4)))
    table = result.tables[1].frame
    assert list(table["epoch"]) == [1, 2, 3]
    assert list(table["gradients are"]) == ["vanishing"] * 3
    assert isinstance(table, pd.DataFrame)
