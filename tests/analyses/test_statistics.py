"""Shared statistics against closed forms, scipy's distributions and brute force."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from analyses.result import Verdict
from analyses.statistics import (
    block_bootstrap,
    block_length,
    lag_one_autocorrelation,
    mean_over_steps,
    means_over_images,
    moving_block_indices,
    paired_change,
    verdict_above,
    verdict_below,
    wilson_interval,
)


def ar1(phi, length, generator):
    noise = generator.standard_normal(length + 50)
    series = np.zeros(length + 50)
    for step in range(1, length + 50):
        series[step] = phi * series[step - 1] + noise[step]
    return series[50:]


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (133, 245), (245, 245)])
def test_wilson_interval_is_the_closed_form(successes, trials):
    z, p = norm.ppf(0.975), successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    assert wilson_interval(successes, trials) == pytest.approx((centre - half, centre + half))


def test_wilson_interval_without_a_trial_excludes_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mcnemar_is_twice_the_binomial_tail_of_the_discordant_images():
    before = np.array([1] * 9 + [0] * 3 + [1] * 20, dtype=bool)
    after = np.array([0] * 9 + [1] * 3 + [1] * 20, dtype=bool)
    change = paired_change(before, after)
    assert (change.gained, change.lost, change.images) == (3, 9, 32)
    assert change.p_value == pytest.approx(2 * binom.cdf(3, 12, 0.5))
    assert change.change == pytest.approx(-6 / 32)


def test_no_discordant_image_is_no_evidence():
    change = paired_change([True, False], [True, False])
    assert (change.p_value, change.variance) == (1.0, 0.0)


def test_variance_of_a_paired_change_is_that_of_its_mean():
    before, after = np.random.default_rng(3).random((2, 50)) < 0.5
    differences = after.astype(float) - before.astype(float)
    assert paired_change(before, after).variance == pytest.approx(differences.var() / 50)


def test_bootstrap_over_images_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=400)
    low, high = np.quantile(means_over_images(values), [0.025, 0.975])
    half = norm.ppf(0.975) * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)


def test_lag_one_autocorrelation_by_hand():
    assert lag_one_autocorrelation([1, 2, 3]) == pytest.approx(0.0)
    assert lag_one_autocorrelation([1, -1, 1, -1]) == pytest.approx(-3 / 4)
    assert lag_one_autocorrelation([2, 2, 2]) == 0


def test_block_length_is_carlsteins_for_ar1():
    series = ar1(0.8, 1000, np.random.default_rng(0))
    phi = lag_one_autocorrelation(series)
    assert block_length(series) == round((2 * phi / (1 - phi**2)) ** (2 / 3) * 10)
    assert block_length(np.ones(50)) == 1
    assert block_length(np.arange(9.0)) <= 3


def test_moving_blocks_are_runs_of_consecutive_steps():
    indices = moving_block_indices(10, 4, resamples=30, seed=1)
    assert indices.shape == (30, 10)
    steps = np.diff(indices, axis=1) % 10
    assert (np.delete(steps, [3, 7], axis=1) == 1).all()


def test_first_and_last_steps_are_drawn_as_often_as_any_other():
    counts = np.bincount(moving_block_indices(10, 4, resamples=5000, seed=1).ravel(), minlength=10)
    assert counts / 5000 == pytest.approx(np.ones(10), abs=0.05)


def test_block_bootstrap_covers_the_mean_of_an_ar1_series_where_single_steps_do_not():
    generator = np.random.default_rng(5)
    covered = narrow = 0
    for repetition in range(60):
        series = ar1(0.7, 200, generator)
        draws = block_bootstrap(series, lambda drawn: drawn.mean(axis=-1), 400, repetition)
        low, high = np.quantile(draws, [0.025, 0.975])
        covered += low < 0 < high
        narrow += abs(series.mean()) < 1.96 * series.std() / np.sqrt(200)
    assert covered >= 50
    assert narrow < covered - 10


def test_mean_over_three_seeds_is_students_interval():
    mean = mean_over_steps([[1.0, 3.0], [4.0], [6.0, np.nan]])
    values = np.array([2.0, 4.0, 6.0])
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)  # t quantile, 2 degrees of freedom
    assert (mean.value, mean.low, mean.high) == pytest.approx((4, 4 - half, 4 + half))


def test_mean_of_few_steps_has_no_interval():
    mean = mean_over_steps([[1.0, 2.0, 3.0]])
    assert (mean.value, mean.low, mean.high) == (2.0, None, None)
    assert "3 steps" in mean.method


def test_mean_of_nothing_finite_is_missing():
    assert mean_over_steps([[np.nan, np.inf], []]).value is None


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.7, Verdict.SUPPORTED, Verdict.CONTRADICTED),
        (0.3, 0.4, Verdict.CONTRADICTED, Verdict.SUPPORTED),
        (0.4, 0.6, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        (None, None, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        (float("nan"), 0.9, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_follow_the_side_the_interval_lies_on(low, high, above, below):
    assert verdict_above(low, high, 0.5) is above
    assert verdict_below(low, high, 0.5) is below
