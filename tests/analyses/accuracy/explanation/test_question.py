"""Planted causes are named, planted links are found, and what was not recorded is said."""

import numpy as np
import pandas as pd
import pytest

from analyses.accuracy.explanation.question import ANALYSIS
from analyses.registry import NotApplicableError
from analyses.result import Verdict

JUMPING = [0.3, 0.7, 0.35, 0.75, 0.4, 0.65, 0.3, 0.7, 0.35]
FLAT = [0.6] * 9


def drawn(running, fresh, images=1000, seed=0):
    luck = np.random.default_rng(seed).random((len(running), images))
    return {
        "right": luck < np.asarray(running)[:, None],
        "recalibrated": luck < np.asarray(fresh)[:, None],
        "epochs": len(running),
        "images": images,
        "steps": 2,
    }


def explain(build, *plans):
    return ANALYSIS.run(build.experiment(*plans))


def of(result, key):
    return next(finding for finding in result.findings if finding.key.startswith(key))


def test_real_jumps_are_what_gradients_may_explain(build):
    finding = of(explain(build, build.plan(**drawn(JUMPING, JUMPING))), "explanation")
    assert finding.verdict is Verdict.SUPPORTED
    assert finding.estimates[0].name == "share of real jumps"
    assert finding.estimates[0].value == pytest.approx(90, abs=10)
    assert "most of the movement of validation accuracy is real jumps" in finding.meaning


def test_stale_statistics_count_against_the_gradients(build):
    finding = of(explain(build, build.plan(**drawn(JUMPING, FLAT))), "explanation")
    assert finding.verdict is Verdict.CONTRADICTED
    assert max(finding.estimates, key=lambda one: one.value).name == "share of stale statistics"
    assert "re-estimated" in finding.next_step
    assert sum(estimate.value for estimate in finding.estimates) == pytest.approx(100)


def test_noise_alone_supports_nothing(build):
    plans = [build.plan(seed=seed, **drawn(FLAT, FLAT, 100, seed)) for seed in range(5)]
    finding = of(explain(build, *plans), "explanation")
    noise = next(one for one in finding.estimates if "noise" in one.name)
    assert finding.verdict is not Verdict.SUPPORTED
    assert noise.low <= 100 <= noise.high


def test_shares_outside_zero_to_one_are_reported_and_said(build):
    finding = of(explain(build, build.plan(**drawn(FLAT, JUMPING))), "explanation")
    stale = next(one for one in finding.estimates if "stale" in one.name)
    assert stale.value < 0
    assert any("Outside 0 to 100 %: stale statistics" in one for one in finding.caveats)


def test_one_change_is_too_few(build):
    finding = of(explain(build, build.plan(**drawn([0.2, 0.8], [0.2, 0.8]))), "explanation")
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "1 change between epochs" in finding.meaning


def test_runs_too_short_to_tell_learning_from_jumps_are_left_out_and_said(build):
    long = build.plan(seed=1, **drawn(JUMPING, JUMPING))
    finding = of(
        explain(build, long, build.plan(seed=2, **drawn(JUMPING[:3], FLAT[:3]))), "explanation"
    )
    assert "1 seed" in finding.estimates[0].method
    assert any(caveat.startswith("Left out: 1 run") for caveat in finding.caveats)


def test_without_re_estimation_it_is_said_that_stale_counts_as_real(build):
    plan = build.plan(**(drawn(JUMPING, JUMPING) | {"recalibrated": None}))
    finding = of(explain(build, plan), "explanation")
    assert all("stale" not in estimate.name for estimate in finding.estimates)
    assert any("not re-estimated" in caveat for caveat in finding.caveats)


def test_accuracy_that_stands_still_cannot_be_explained(build):
    plan = build.plan(**(drawn(FLAT, FLAT) | {"right": np.ones((9, 1000), dtype=bool)}))
    plan.recalibrated = plan.right
    assert "does not move" in of(explain(build, plan), "explanation").meaning


def linked(build, slope):
    """Five seeds whose update-to-weight ratio follows the change of accuracy with `slope`."""
    generator = np.random.default_rng(3)
    plans, curves = [], []
    for seed in range(5):
        curves.append(generator.uniform(0.2, 0.8, 10))
        plans.append(build.plan(seed=seed, noise=0.3, **drawn(curves[-1], curves[-1], 300, seed)))
    experiment = build.experiment(*plans)
    for run, curve in zip(experiment.runs, curves, strict=True):
        change, frame = np.diff(curve, prepend=curve[0]), run.parameters
        frame["update_to_weight"] *= np.exp(slope * change[frame["epoch"].to_numpy() - 1])
    return of(ANALYSIS.run(experiment), "association")


def test_a_planted_link_is_found_and_called_an_association(build):
    finding = linked(build, 1.0)
    assert finding.verdict is Verdict.SUPPORTED
    assert "update to weight of the same epoch" in finding.meaning
    assert any(caveat.startswith("An association") for caveat in finding.caveats)


def test_unrelated_gradients_are_not_linked(build):
    assert linked(build, 0.0).verdict is not Verdict.SUPPORTED


def test_one_seed_of_ten_epochs_allows_no_verdict_on_a_link(build):
    finding = of(explain(build, build.plan(noise=0.3, **drawn(JUMPING, JUMPING))), "association")
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "allow no p-value below 0.125" in finding.meaning
    assert "4 seeds" in finding.next_step


def test_without_gradients_the_shares_stand_and_the_link_cannot_be_told(build):
    missing = ("gradients", "parameters")
    result = explain(build, build.plan(without=missing, **drawn(JUMPING, JUMPING)))
    assert of(result, "explanation").verdict is Verdict.SUPPORTED
    assert "no quantity that varies" in of(result, "association").meaning
    assert [figure.key for figure in result.figures] == ["shares"]


def test_the_dose_of_staleness_goes_with_the_movement_removed(build):
    generator = np.random.default_rng(5)
    plans, gaps = [], []
    for seed in range(5):
        gap = generator.uniform(0.0, 0.5, 12) * (np.arange(12) % 2)
        gaps.append(gap)
        plans.append(build.plan(seed=seed, **drawn(0.7 - gap, [0.7] * 12, 500, seed)))
    experiment = build.experiment(*plans)
    assert all(not finding.key.startswith("dose") for finding in ANALYSIS.run(experiment).findings)
    for run, gap in zip(experiment.runs, gaps, strict=True):
        # Movement into an epoch is large where either end of it is stale.
        dose = np.exp(np.maximum(gap, np.roll(gap, 1)))
        rows = {"epoch": range(1, 13), "layer": "bn", "mean_shift": dose, "variance_shift": dose}
        run._tables["batchnorm_staleness"] = pd.DataFrame(rows)
    finding = of(ANALYSIS.run(experiment), "dose")
    assert finding.verdict is Verdict.SUPPORTED
    assert "the same epoch" in finding.meaning


def test_without_predictions_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="predictions"):
        explain(build, build.plan())
