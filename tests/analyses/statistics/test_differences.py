"""Intervals of differences against published values and the case of two normal means."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.differences import (
    difference_interval,
    difference_over_seeds,
    proportion_over_seeds,
)
from analyses.statistics.proportions import wilson_interval


def test_the_difference_of_proportions_is_newcombes_published_one():
    # Newcombe 1998, Interval estimation for the difference between independent proportions,
    # table II, contrast (a), method 10: 56/70 - 48/80.
    mean = difference_over_seeds([56], [48], 70)
    low, high = difference_interval(
        (56 / 70, *wilson_interval(56, 70)), (48 / 80, *wilson_interval(48, 80))
    )
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert mean.value == pytest.approx(8 / 70)


def test_symmetric_intervals_add_in_squares():
    low, high = difference_interval((5.0, 2.0, 8.0), (1.0, -3.0, 5.0))
    assert (low, high) == pytest.approx((4 - 5, 4 + 5))


def test_three_seeds_give_students_interval_of_their_differences():
    first, second = [50, 60, 55], [40, 58, 41]
    mean = difference_over_seeds(first, second, 100)
    gaps = (np.array(first) - second) / 100
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high))


def test_two_seeds_are_no_more_images_than_one():
    assert proportion_over_seeds([40, 40], 100).low == pytest.approx(wilson_interval(40, 100)[0])
