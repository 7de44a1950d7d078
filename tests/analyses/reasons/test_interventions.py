"""What re-estimated statistics take away of a planted difference between two networks."""

import numpy as np
import pytest
from scipy import stats

from analyses.reading.pairs import residual_pairs
from analyses.reasons.interventions import interventions_on, last_accuracy

SMALL = {"epochs": 2, "steps": 2, "images": 100}


def compared(build, accuracies):
    """`accuracies` of each seed: plain running, plain fresh, residual running, residual fresh."""
    plans = []
    for seed, values in enumerate(accuracies):
        rights = [build.right_of([value, value], images=100) for value in values]
        for network, share, right, fresh in (
            ("plain8", None, *rights[:2]),
            ("resnet8", 0.6, *rights[2:]),
        ):
            tables = {"right": right, "recalibrated": fresh, "skip_share": share}
            plans.append(build.plan(network, seed, **tables, **SMALL))
    experiment = build.experiment(*plans)
    return interventions_on(experiment, residual_pairs(experiment)[0])


def test_what_is_taken_away_is_the_gap_less_what_is_left(build):
    found = compared(build, [(0.4, 0.7, 0.8, 0.9)])
    assert found.mean_difference.value == pytest.approx(0.4)
    assert found.difference_removed.value == pytest.approx(0.4 - 0.2)
    assert found.difference_removed.low < 0.2 < found.difference_removed.high
    assert "100 validation images" in found.difference_removed.method


def test_the_interval_over_images_is_that_of_scipys_bootstrap(build):
    found = compared(build, [(0.4, 0.7, 0.8, 0.9)])
    sides = [build.right_of([value], images=100)[0] for value in (0.4, 0.7, 0.8, 0.9)]
    plain, plain_fresh, residual, residual_fresh = (side.astype(float) for side in sides)
    removed = (residual - plain) - (residual_fresh - plain_fresh)
    interval = stats.bootstrap(
        (removed,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.difference_removed.low, found.difference_removed.high) == pytest.approx(
        interval, abs=0.02
    )


def test_three_seeds_give_students_interval(build):
    accuracies = [(0.4, 0.7, 0.8, 0.9), (0.5, 0.7, 0.8, 0.9), (0.3, 0.6, 0.8, 0.9)]
    found = compared(build, accuracies)
    expected = stats.ttest_1samp([0.2, 0.1, 0.2], 0).confidence_interval()
    assert (found.difference_removed.low, found.difference_removed.high) == pytest.approx(
        (expected.low, expected.high)
    )


def test_what_was_not_recorded_is_none(build):
    experiment = build.experiment(build.plan("plain8"), build.plan("resnet8", skip_share=0.6))
    found = interventions_on(experiment, residual_pairs(experiment)[0])
    assert (
        found.mean_difference,
        found.difference_removed,
        found.loss_without_skips,
        found.deletion_cost_difference,
    ) == (None, None, None, None)


def test_accuracy_is_that_of_the_last_epoch(build):
    right = build.right_of([0.2, 0.7], images=60)
    runs = build.experiment(build.plan(right=right, epochs=2), build.plan("other")).runs
    assert last_accuracy(runs[0]) == pytest.approx(0.7)
    assert np.isnan(last_accuracy(runs[1]))
