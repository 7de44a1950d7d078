"""Wilson intervals and McNemar tests beside closed forms."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from analyses.statistics.proportions import (
    mean_of_proportions,
    paired_change,
    wilson_interval,
)


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


def test_the_interval_of_one_proportion_is_wilsons():
    assert mean_of_proportions([7], [10]) == pytest.approx(wilson_interval(7, 10))


def test_the_interval_of_a_mean_of_two_proportions_is_newcombes():
    """Newcombe 1998, method 10, is about p - q, whose second interval is that of q mirrored."""
    (low, high), (other_low, other_high) = wilson_interval(56, 70), wilson_interval(48, 80)
    down = math.hypot(56 / 70 - low, other_high - 48 / 80)
    up = math.hypot(high - 56 / 70, 48 / 80 - other_low)
    assert (0.2 - down, 0.2 + up) == pytest.approx((0.0524, 0.3339), abs=5e-5)  # as published
    # The mean of p and 1 - q is half of p - q, and a half.
    assert mean_of_proportions([56, 32], [70, 80]) == pytest.approx(
        (0.5 + (0.2 - down) / 2, 0.5 + (0.2 + up) / 2)
    )


def test_the_interval_of_a_mean_of_proportions_has_its_level():
    generator = np.random.default_rng(0)
    sizes, shares = np.array([60, 12, 8]), np.array([0.9, 0.5, 0.3])
    drawn = generator.binomial(sizes, shares, (300, 3))
    ends = [mean_of_proportions(one, sizes) for one in drawn]
    covered = np.mean([low <= shares.mean() <= high for low, high in ends])
    assert 0.92 < covered < 0.98
