"""Planted vanishing, exploding and healthy gradients are told apart."""

import pandas as pd
import pytest

from analyses.gradient_profile import ANALYSIS, classify, run
from analyses.registry import NotApplicableError
from analyses.result import Verdict


def verdicts(result):
    return {finding.key: finding.verdict for finding in result.findings}


@pytest.mark.parametrize(
    ("factor", "vanish", "explode"),
    [
        (0.4, Verdict.SUPPORTED, Verdict.CONTRADICTED),
        (1.0, Verdict.CONTRADICTED, Verdict.CONTRADICTED),
        (2.5, Verdict.CONTRADICTED, Verdict.SUPPORTED),
    ],
)
def test_planted_gradients_get_the_right_verdict(build, factor, vanish, explode):
    result = ANALYSIS.run(build.experiment(build.plan(factor=factor, noise=0.2)))
    assert verdicts(result) == {"vanish-plain8": vanish, "explode-plain8": explode}


def test_thresholds_are_arguments(build):
    experiment = build.experiment(build.plan(factor=0.9, noise=0.05))
    assert verdicts(run(experiment))["vanish-plain8"] is Verdict.CONTRADICTED
    assert verdicts(run(experiment, vanishing=0.9))["vanish-plain8"] is Verdict.SUPPORTED


def test_one_step_gives_no_interval_and_no_verdict(build):
    result = ANALYSIS.run(build.experiment(build.plan(factor=0.4, epochs=1, steps=1)))
    assert set(verdicts(result).values()) == {Verdict.INCONCLUSIVE}
    assert result.findings[0].estimates[0].value == pytest.approx(0.4)
    assert result.findings[0].estimates[0].low is None


def test_three_seeds_give_an_interval_over_seeds(build):
    plans = [build.plan(seed=seed, factor=0.5, noise=0.1) for seed in (1, 2, 3)]
    result = ANALYSIS.run(build.experiment(*plans))
    assert "3 seeds" in result.findings[0].estimates[0].method


def test_gradients_exactly_zero_are_said_and_not_called_vanishing(build):
    result = ANALYSIS.run(build.experiment(build.plan(factor=0.0)))
    finding = result.findings[0]
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "87.5 % of the recorded gradients are exactly zero" in " ".join(finding.caveats)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_give_no_factor(build, factor):
    result = ANALYSIS.run(build.experiment(build.plan(factor=factor)))
    assert set(verdicts(result).values()) == {Verdict.INCONCLUSIVE}
    for figure in result.figures:
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
    assert classify(low, high, 0.5, 2.0) == state


def test_epochs_are_listed_with_their_class(build):
    result = ANALYSIS.run(build.experiment(build.plan(factor=0.4)))
    table = result.tables[1].frame
    assert list(table["epoch"]) == [1, 2, 3]
    assert list(table["gradients are"]) == ["vanishing"] * 3
    assert isinstance(table, pd.DataFrame)
