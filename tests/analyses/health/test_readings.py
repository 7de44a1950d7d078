"""Medians at both ends of a run, and the joint verdict from the readings of several runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.health.conditions.units import channels
from analyses.health.findings import joint_verdict
from analyses.health.readings import Reading, median_interval, window_medians, window_size
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


def test_channels_stand_first_after_convolutions_and_last_after_linear_layers():
    layers = pd.DataFrame(
        {
            "layer": ["c", "r", "l", "t"],
            "role": ["convolution", "activation", "linear", "activation"],
            "shape": ["8x4x4", "8x4x4", "10x32", "10x32"],
        }
    )
    assert channels(layers).to_dict() == {"c": 8, "r": 8, "l": 32, "t": 32}
