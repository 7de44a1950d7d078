"""Shares of the movement: closed forms, planted causes, and intervals that cover."""

import numpy as np
import pytest
from scipy import stats

from analyses.accuracy.explanation.measure import JUMPS, LEARNING, NOISE, REAL, STALE, decompose
from analyses.accuracy.recalibration.measure import RecalibrationSeries
from analyses.statistics.proportions import paired_change

JUMPING = np.array([0.3, 0.7, 0.35, 0.75, 0.4, 0.65, 0.3, 0.7, 0.35])


def pair(running, fresh=None):
    fresh = running if fresh is None else fresh
    epochs = tuple(range(1, len(running) + 1))
    return RecalibrationSeries("1", epochs, running.astype(float), fresh.astype(float))


def drawn(running, fresh, images, generator):
    """The same images and the same luck in both series, as one network has them."""
    luck = generator.random((len(running), images))
    return pair(luck < np.asarray(running)[:, None], luck < np.asarray(fresh)[:, None])


def value(found, name):
    return found.share(name).value


def test_the_shares_add_up_to_one_and_noise_is_mcnemars_variance():
    one = drawn(JUMPING, JUMPING[::-1], 200, np.random.default_rng(0))
    found = decompose([one])
    changes = [paired_change(*rows) for rows in zip(one.running[:-1], one.running[1:], strict=True)]
    movement = sum(change.change**2 for change in changes)
    assert sum(share.value for share in found.shares) == pytest.approx(1, abs=1e-12)
    assert found.movement == pytest.approx(movement)
    assert value(found, NOISE) == pytest.approx(sum(c.variance for c in changes) / movement)


def test_learning_is_the_least_squares_fit_less_its_noise():
    one = drawn(JUMPING, JUMPING[::-1], 150, np.random.default_rng(1))
    steps = np.diff(one.re_estimated, axis=0)
    k = np.arange(1, len(steps) + 1)
    design = np.stack([np.ones(len(k)), 1 / k], axis=1)
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    covariance = np.cov(steps, bias=True) / 150
    fitted = hat @ steps.mean(axis=1)
    expected = fitted @ fitted - np.trace(hat @ covariance)
    found = decompose([one])
    assert value(found, LEARNING) * found.movement == pytest.approx(expected)


@pytest.mark.parametrize(
    ("running", "fresh", "cause"),
    [
        (np.full(9, 0.5), np.full(9, 0.5), NOISE),
        (JUMPING, np.full(9, 0.6), STALE),
        (JUMPING, JUMPING, JUMPS),
        (np.linspace(0.05, 0.95, 9), np.linspace(0.05, 0.95, 9), LEARNING),
    ],
)
def test_a_planted_cause_takes_nearly_all_of_the_movement(running, fresh, cause):
    generator = np.random.default_rng(2)
    images = 1000 if cause != NOISE else 200
    found = decompose([drawn(running, fresh, images, generator) for _ in range(2)])
    assert value(found, cause) == pytest.approx(1, abs=0.25)
    assert max(found.shares, key=lambda share: share.value).name == cause
    if cause != NOISE:
        assert found.share(cause).low > 0.5


def test_re_estimation_that_adds_movement_is_a_share_below_zero():
    found = decompose([drawn(np.full(9, 0.5), JUMPING, 300, np.random.default_rng(3))])
    assert value(found, STALE) < -1
    assert value(found, JUMPS) > 1


def truth(running, fresh, images):
    """Shares that unlimited repetition would give; each outcome is drawn anew at each epoch."""
    variance = np.add(running[1:] * (1 - running[1:]), running[:-1] * (1 - running[:-1])) / images
    moved = np.square(np.diff(running)).sum()
    real = np.square(np.diff(fresh)).sum()
    total = moved + variance.sum()
    return {NOISE: variance.sum() / total, STALE: (moved - real) / total}


@pytest.mark.parametrize("seeds", [1, 4])
def test_intervals_cover_the_true_shares(seeds):
    generator = np.random.default_rng(4)
    fresh = 0.5 + (JUMPING - 0.5) / 2
    true = truth(JUMPING, fresh, 120)
    covered = dict.fromkeys(true, 0)
    for _ in range(50):
        found = decompose([drawn(JUMPING, fresh, 120, generator) for _ in range(seeds)])
        for name, share in true.items():
            covered[name] += found.share(name).low <= share <= found.share(name).high
    assert min(covered.values()) >= 43  # Binomial(50, 0.95) is below 43 once in 80 times


def test_from_three_seeds_on_the_interval_is_students_of_a_ratio():
    generator = np.random.default_rng(5)
    pairs = [drawn(JUMPING, JUMPING / 2, 100, generator) for _ in range(3)]
    alone = [decompose([one]) for one in pairs]
    total = np.array([one.movement for one in alone])
    stale = np.array([value(one, STALE) for one in alone]) * total
    ratio = stale.sum() / total.sum()
    half = stats.t.ppf(0.975, 2) * stats.sem(stale - ratio * total) / total.mean()
    share = decompose(pairs).share(STALE)
    assert (share.value, share.low, share.high) == pytest.approx(
        (ratio, ratio - half, ratio + half)
    )


def test_few_epochs_leave_learning_and_jumps_together():
    found = decompose([drawn(JUMPING[:4], JUMPING[:4], 100, np.random.default_rng(6))])
    assert [share.name for share in found.shares] == [NOISE, STALE, REAL]


def test_without_re_estimation_nothing_is_called_stale():
    found = decompose([drawn(JUMPING, JUMPING, 100, np.random.default_rng(7))], False)
    assert [share.name for share in found.shares] == [NOISE, LEARNING, JUMPS]
    assert sum(share.value for share in found.shares) == pytest.approx(1)


def test_accuracy_that_stands_still_has_no_shares():
    found = decompose([pair(np.ones((9, 50)))])
    assert (found.movement, found.shares, found.real) == (0.0, (), None)
