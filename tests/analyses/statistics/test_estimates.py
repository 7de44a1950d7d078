"""Means become estimates, scaled and without anything infinite."""

import math

import pytest

from analyses.statistics.estimates import as_factor, as_percent, estimate_of
from analyses.statistics.means import Mean


def test_all_three_numbers_are_scaled():
    one = estimate_of("cost", Mean(0.2, 0.1, 0.3, "over images"), "points", as_percent)
    assert (one.value, one.low, one.high) == pytest.approx((20, 10, 30))
    assert (one.unit, one.method) == ("points", "over images")


def test_logarithms_become_factors_and_what_overflows_is_missing():
    one = estimate_of("ratio", Mean(math.log(3), 0.0, 1e4, ""), scale=as_factor)
    assert (one.value, one.low, one.high) == (pytest.approx(3), 1.0, None)


def test_a_missing_mean_says_why():
    one = estimate_of("cost", None, missing="not recorded")
    assert (one.value, one.low, one.method) == (None, None, "not recorded")
