"""Means over steps and seeds beside Student's interval."""

import numpy as np
import pytest

from analyses.statistics.means import mean_over_steps


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
