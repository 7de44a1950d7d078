"""Planted cases: all, half or none of the movement goes away."""

import numpy as np
import pytest

from analyses.accuracy.recalibration.measure import (
    RecalibrationSeries,
    movement_and_removal,
    squared_movement,
)
from analyses.accuracy.recalibration.question import ANALYSIS
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.statistics.proportions import paired_change

JUMPING = [0.3, 0.7, 0.35, 0.75, 0.4]


def noisy(accuracies, images=300, seed=0):
    """Booleans [epochs, images] drawn anew for each epoch: sampling noise in every change."""
    draws = np.random.default_rng(seed).random((len(accuracies), images))
    return draws < np.asarray(accuracies)[:, None]


def finding_of(build, running, fresh):
    plan = build.plan(right=running, recalibrated=fresh, epochs=len(running))
    return ANALYSIS.run(build.experiment(plan)).findings[0]


def test_movement_is_squared_change_less_its_sampling_variance():
    right = noisy([0.4, 0.6, 0.5])
    changes = [paired_change(right[0], right[1]), paired_change(right[1], right[2])]
    expected = sum(one.change**2 - one.variance for one in changes)
    movement, noise = squared_movement(right.astype(float), np.ones((1, 300)))
    assert movement == pytest.approx([expected])
    assert noise == pytest.approx([sum(one.variance for one in changes)])


def test_movement_of_pure_noise_is_zero_on_average():
    draws = [
        squared_movement(noisy([0.5] * 5, 100, seed).astype(float), np.ones((1, 100)))
        for seed in range(200)
    ]
    movements = np.array([movement[0] for movement, _ in draws])
    assert abs(movements.mean()) < 3 * movements.std() / np.sqrt(200)
    assert np.mean([noise[0] for _, noise in draws]) > 0.015


def test_intervals_cover_the_true_share():
    covered = 0
    for seed in range(40):
        running, fresh = noisy(JUMPING, seed=seed), noisy([0.5, 0.7, 0.5, 0.7, 0.5], seed=seed + 99)
        true = 1 - 4 * 0.2**2 / np.square(np.diff(JUMPING)).sum()
        pair = RecalibrationSeries(
            "1", tuple(range(1, 6)), running.astype(float), fresh.astype(float)
        )
        moved = movement_and_removal([pair], 500, seed)
        covered += moved.removed_low <= true <= moved.removed_high
    assert covered >= 34


def test_all_movement_removed_is_supported(build):
    finding = finding_of(build, noisy(JUMPING), noisy([0.6] * 5, seed=1))
    assert finding.verdict is Verdict.SUPPORTED
    assert finding.estimates[0].value == pytest.approx(100, abs=10)


def test_no_movement_removed_is_contradicted(build):
    finding = finding_of(build, noisy(JUMPING), noisy(JUMPING, seed=1))
    assert finding.verdict is Verdict.CONTRADICTED
    assert finding.estimates[0].value == pytest.approx(0, abs=30)


def test_no_movement_to_begin_with_is_inconclusive(build):
    finding = finding_of(build, noisy([0.5] * 5), noisy([0.5] * 5, seed=1))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "cannot be told" in finding.meaning
    assert "sampling noise alone" in finding.meaning


def test_one_change_is_too_few(build):
    finding = finding_of(build, noisy([0.2, 0.8]), noisy([0.5, 0.5], seed=1))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "1 change between epochs" in finding.meaning


def test_the_changes_are_listed_with_what_is_left(build):
    running, fresh = noisy(JUMPING), noisy([0.6] * 5, seed=1)
    plan = build.plan(right=running, recalibrated=fresh, epochs=5)
    result = ANALYSIS.run(build.experiment(plan))
    table = result.tables[1].frame
    assert list(table["change, running"]) == pytest.approx(np.diff(running.mean(axis=1)))
    assert list(table["change, re-estimated"]) == pytest.approx(np.diff(fresh.mean(axis=1)))


def test_without_recalibration_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="recalibration"):
        ANALYSIS.run(build.experiment(build.plan(right=noisy(JUMPING), epochs=5)))
