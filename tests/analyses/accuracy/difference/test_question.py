"""Networks paired by seed: who is ahead, by how much, and how many seeds settle it."""

import numpy as np
import pytest
from scipy import stats

from analyses.accuracy.difference.measure import accuracy_difference, matched_runs
from analyses.accuracy.difference.question import ANALYSIS, run
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.statistics.power import seeds_for_power

# Nothing here looks at layers: as few of them as make a network.
SMALL = {"steps": 1, "convolutions": 2}


def networks(build, plain, residual, seeds=(2025,), images=100):
    """Accuracies rise to `plain` and `residual`, a little more for some seeds; three epochs."""
    plans = []
    for name, final, share in (("plain8", plain, None), ("resnet8", residual, 0.5)):
        for seed in seeds:
            right = build.right_of([0.2, 0.3, final + 0.01 * (seed % 3)], images, seed)
            plans.append(build.plan(name, seed, right=right, skip_share=share, **SMALL))
    return build.experiment(*plans)


def spread(build, gaps, images=100):
    """One seed for each of `gaps`: the residual network is ahead by that much at every epoch."""
    plans = []
    for seed, gap in enumerate(gaps):
        for name, level, share in (("plain8", 0.3, None), ("resnet8", 0.3 + gap, 0.5)):
            right = build.right_of([level] * 3, images, seed)
            plans.append(
                build.plan(name, seed, right=right, images=images, skip_share=share, **SMALL)
            )
    return build.experiment(*plans)


def finding(result, start):
    return next(one for one in result.findings if one.key.startswith(start))


def test_the_headline_is_the_mean_over_epochs(build):
    over_epochs = finding(ANALYSIS.run(networks(build, 0.4, 0.7)), "ahead")
    assert over_epochs.estimates[0].value == pytest.approx(10)
    assert over_epochs.verdict is Verdict.SUPPORTED
    assert "10.0\u00a0percentage points" in over_epochs.meaning
    assert "resampling images only" in over_epochs.meaning


def test_a_large_difference_on_the_same_images_is_supported(build):
    last = finding(ANALYSIS.run(networks(build, 0.4, 0.7)), "higher-accuracy")
    assert last.verdict is Verdict.SUPPORTED
    assert last.estimates[0].value == pytest.approx(30)
    assert "p < 0.001" in last.meaning
    assert any("optimistic" in caveat for caveat in last.caveats)


def test_the_sign_of_the_difference_decides(build):
    result = ANALYSIS.run(networks(build, 0.7, 0.4))
    assert finding(result, "higher-accuracy").verdict is Verdict.CONTRADICTED
    assert finding(result, "higher-accuracy").meaning.count("resnet8 is behind plain8")
    assert finding(result, "ahead").verdict is Verdict.CONTRADICTED


def test_equal_networks_cannot_be_told_apart(build):
    result = ANALYSIS.run(networks(build, 0.5, 0.5))
    assert finding(result, "higher-accuracy").verdict is Verdict.INCONCLUSIVE
    assert finding(result, "ahead").verdict is Verdict.INCONCLUSIVE


def test_three_seeds_are_paired(build):
    last = finding(ANALYSIS.run(networks(build, 0.4, 0.7, seeds=(1, 2, 3))), "higher-accuracy")
    assert last.estimates[0].value == pytest.approx(30)
    assert "3 seeds" in last.estimates[0].method


def test_spread_seeds_widen_the_interval_at_least_to_students(build):
    gaps = [0.02, 0.30, 0.10, 0.22]
    estimate = finding(ANALYSIS.run(spread(build, gaps)), "ahead").estimates[0]
    low, high = stats.t.interval(0.95, 3, 100 * np.mean(gaps), 100 * stats.sem(gaps))
    assert estimate.value == pytest.approx(16)
    assert estimate.low <= low + 1
    assert estimate.high >= high - 1


def test_power_of_the_smallest_size_of_interest(build):
    gaps = [0.02, 0.30, 0.10, 0.22]
    power = finding(run(spread(build, gaps), smallest_difference=0.05), "enough-seeds")
    wanted = seeds_for_power(0.05, float(np.std(gaps, ddof=1)))
    assert power.estimates[0].value == wanted
    assert power.estimates[1].value == seeds_for_power(0.16, float(np.std(gaps, ddof=1)))
    assert power.verdict is Verdict.CONTRADICTED
    assert f"{wanted} are needed" in power.meaning


def test_seeds_that_agree_are_enough(build):
    power = finding(
        run(spread(build, [0.2, 0.2, 0.21, 0.2]), smallest_difference=0.1), "enough-seeds"
    )
    assert power.verdict is Verdict.SUPPORTED
    assert power.estimates[0].high <= 4


def test_one_seed_cannot_tell_how_many_are_needed(build):
    result = ANALYSIS.run(networks(build, 0.4, 0.7))
    power = finding(result, "enough-seeds")
    assert power.verdict is Verdict.INCONCLUSIVE
    assert power.estimates[0].value is None
    assert "1 seed shows no spread between seeds" in power.meaning
    assert not [one for one in result.figures if one.key.startswith("power")]


def test_re_estimated_statistics_stand_beside(build):
    right = build.right_of([0.3, 0.5, 0.4])
    fresh = {"plain8": build.right_of([0.5] * 3), "resnet8": build.right_of([0.6] * 3)}
    plans = [
        build.plan(
            name, right=right, recalibrated=one, skip_share=0.5 if "res" in name else None, **SMALL
        )
        for name, one in fresh.items()
    ]
    over_epochs = finding(ANALYSIS.run(build.experiment(*plans)), "ahead")
    assert over_epochs.estimates[0].value == pytest.approx(0)
    assert over_epochs.estimates[1].value == pytest.approx(10)
    assert "re-estimated batch-norm statistics it is 10" in over_epochs.meaning


def test_a_seed_still_in_training_is_left_out_and_named(build):
    plans = []
    for seed, epochs in ((1, 3), (2, 3), (3, 1)):
        for name, share in (("plain8", None), ("resnet8", 0.5)):
            right = build.right_of([0.4 + 0.2 * bool(share)] * epochs, seed=seed)
            plans.append(
                build.plan(name, seed, right=right, epochs=epochs, skip_share=share, **SMALL)
            )
    over_epochs = finding(ANALYSIS.run(build.experiment(*plans)), "ahead")
    assert "over 2 seeds" in over_epochs.meaning
    assert "3 epochs" in over_epochs.meaning
    assert any("seed 3 (1 epoch)" in caveat for caveat in over_epochs.caveats)


def test_options_that_differ_within_a_pair_are_named(build):
    plans = [
        build.plan(
            name, right=build.right_of([0.5] * 3), skip_share=share, configuration={"lr": lr}
        )
        for name, share, lr in (("plain8", None, 0.1), ("resnet8", 0.5, 0.2))
    ]
    over_epochs = finding(ANALYSIS.run(build.experiment(*plans)), "ahead")
    assert any("also differ in lr" in caveat for caveat in over_epochs.caveats)


def test_without_predictions_the_scalars_give_a_difference_without_interval(build):
    experiment = networks(build, 0.4, 0.7)
    for one in experiment.runs:
        one._tables["predictions"] = one.predictions.iloc[:0]
    gap = accuracy_difference(matched_runs([(experiment.runs[0], experiment.runs[1])]))
    assert (gap.value, gap.low) == (pytest.approx(0.3), None)
    result = ANALYSIS.run(experiment)
    assert finding(result, "ahead").verdict is Verdict.INCONCLUSIVE
    result.figures[0].draw()


def test_without_a_pair_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="of one seed"):
        ANALYSIS.run(build.experiment(build.plan(right=build.right_of([0.5] * 3))))


def test_tables_hold_the_curve_and_the_seeds(build):
    result = ANALYSIS.run(spread(build, [0.1, 0.2, 0.3]))
    tables = {table.key: table.frame for table in result.tables}
    curve, seeds = tables["by-epoch-resnet8"], tables["by-seed-resnet8"]
    assert list(curve["epoch"]) == [1, 2, 3]
    assert curve["running"].tolist() == pytest.approx([20] * 3)
    assert (curve["running, band high"] >= curve["running, 95 % high"]).all()
    assert seeds["mean over epochs"].tolist() == pytest.approx([10, 20, 30])
    power = tables["power-resnet8"]
    assert power["sd between seeds"].tolist() == pytest.approx([10] * len(power))
