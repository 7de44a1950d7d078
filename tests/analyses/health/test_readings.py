"""Medians at both ends of a run, and the joint verdict from the readings of several runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.health.conditions.units import channels
from analyses.health.findings import joint_verdict
from analyses.health.readings import (
    Reading,
    held_since,
    median_interval,
    since_beyond,
    window_medians,
    window_size,
)
from analyses.result import Verdict


@pytest.mark.parametrize(
    ("verdicts", "joint"),
    [
        ("ssc", Verdict.SUPPORTED),
        ("scc", Verdict.INCONCLUSIVE),
        ("cci", Verdict.CONTRADICTED),
        ("cii", Verdict.INCONCLUSIVE),
    ],
)
def test_half_of_the_runs_decide(verdicts, joint):
    names = {
        "s": Verdict.SUPPORTED,
        "c": Verdict.CONTRADICTED,
        "i": Verdict.INCONCLUSIVE,
    }
    blank = ("", "", None, None, None, None, False, 0.0, "below 1", "")
    readings = [Reading("dead", names[letter], *blank) for letter in verdicts]
    assert joint_verdict("dead", readings) is joint


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    for count in (6, 8, 20):
        low, high = median_interval(np.arange(float(count)))
        # Values low to high are the k-th ones from both ends: P(k <= below the median <= n - k).
        assert stats.binom.cdf(high, count, 0.5) - stats.binom.cdf(low, count, 0.5) >= 0.95
        inner = stats.binom.cdf(high - 1, count, 0.5) - stats.binom.cdf(low + 1, count, 0.5)
        assert inner < 0.95
    assert median_interval(np.arange(5.0)) == (None, None)


def test_windows_hold_a_third_of_the_steps_within_bounds():
    assert [window_size(count) for count in (3, 10, 30, 600)] == [3, 6, 10, 20]
    one = window_medians(np.array([9.0] * 10 + [np.nan] * 3 + [1.0] * 10))
    assert (one.early_value, one.value) == (9, 1)


@pytest.mark.parametrize(
    ("ill", "since"),
    [("0111", 20), ("1111", 10), ("1011", 30), ("1110", None), ("", None)],
)
def test_a_condition_holds_since_the_step_after_which_it_never_broke(ill, since):
    steps = np.arange(10, 50, 10)[: len(ill)]
    assert held_since(np.array([one == "1" for one in ill]), steps) == since


@pytest.mark.parametrize(
    ("ill", "since"),
    [
        ("0110111", 1),
        ("0100111", 1),
        ("0100011", 5),
        ("0111100", 1),
        ("0011000", None),
        ("000", None),
    ],
)
def test_short_breaks_can_be_overlooked_but_not_at_the_beginning(ill, since):
    steps = np.arange(len(ill))
    assert held_since(np.array([one == "1" for one in ill]), steps, breaks=2) == since


def test_values_that_are_not_finite_do_not_end_a_condition():
    index = pd.MultiIndex.from_product([[1], range(3, 24, 3)], names=["epoch", "step"])
    series = pd.Series([5.0, 0.1, np.nan, np.nan, np.nan, 0.2, 0.3], index=index)
    assert since_beyond(series, 1.0, above=False) == 6
    assert since_beyond(series[1:], 1.0, above=True) is None


def test_channels_stand_first_after_convolutions_and_last_after_linear_layers():
    layers = pd.DataFrame(
        {
            "layer": ["c", "r", "l", "t"],
            "role": ["convolution", "activation", "linear", "activation"],
            "shape": ["8x4x4", "8x4x4", "10x32", "10x32"],
        }
    )
    assert channels(layers).to_dict() == {"c": 8, "r": 8, "l": 32, "t": 32}
