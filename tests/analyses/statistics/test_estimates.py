"""Means become estimates, scaled and without anything infinite."""

import math

import pytest

from analyses.result import Estimate
from analyses.statistics.estimates import as_factor, as_percent, estimate_of, estimate_table
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


def test_table_has_a_row_for_each_network_and_estimate():
    table = estimate_table({"a": [Estimate("x", 1.0, 0.5, 2.0)], "b": [Estimate("x", None)]})
    assert table.columns.tolist() == ["network", "quantity", "value", "95 % low", "95 % high"]
    assert table.iloc[0].tolist() == ["a", "x", 1.0, 0.5, 2.0]
    assert table.iloc[1].tolist()[:2] == ["b", "x"]
    assert table.iloc[1, 2:].isna().all()
