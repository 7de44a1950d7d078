"""Results from histograms, compared with numpy's results from the values themselves."""

import math

import numpy as np
import pandas as pd
import pytest

from gradflow.runs.reading.magnitudes import (
    BFLOAT16,
    FLOAT16,
    bins,
    element_counts,
    fraction_above_largest,
    fraction_below_normal,
    fraction_below_smallest,
    fraction_lost,
    loss_scale,
    nonzero_counts,
    percentile,
)


def frame_of(*tensors: np.ndarray) -> pd.DataFrame:
    """The rows that a run would record for these float64 values."""
    rows = []
    for number, values in enumerate(tensors):
        sizes = np.abs(values)
        normal = sizes[np.isfinite(sizes) & (sizes >= 2.0**-126)]
        exponents = np.floor(np.log2(normal)).astype(int)
        lowest = exponents.min() if exponents.size else None
        rows.append(
            {
                "epoch": 1,
                "step": 0,
                "layer": f"layer{number}",
                "zeros": int((sizes == 0).sum()),
                "underflow": int(((sizes > 0) & (sizes < 2.0**-126)).sum()),
                "infinite": int(np.isinf(sizes).sum()),
                "nan": int(np.isnan(sizes).sum()),
                "lowest_exponent": lowest,
                "counts": np.bincount(exponents - lowest) if exponents.size else np.array([], int),
            }
        )
    return pd.DataFrame(rows, index=[10 + number for number in range(len(rows))])


@pytest.fixture
def values() -> np.ndarray:
    generator = np.random.default_rng(0)
    magnitudes = np.exp2(generator.uniform(-30, 10, 999))
    return np.concatenate([magnitudes * generator.choice([-1, 1], 999), [0.0] * 50, [1e-40]])


@pytest.mark.parametrize("percent", [0, 1, 5, 25, 50, 75, 99, 100])
def test_percentiles_are_numpys_rounded_down_to_a_power_of_two(values, percent):
    exact = np.percentile(np.abs(values), percent, method="inverted_cdf")
    expected = 0.0 if exact < 2.0**-126 else 2.0 ** math.floor(math.log2(exact))
    assert percentile(frame_of(values), percent).loc[10] == expected


def test_infinities_and_nans_are_the_largest():
    frame = frame_of(np.array([1.0, math.inf, math.nan, math.nan]))
    assert percentile(frame, 25).loc[10] == 1.0
    assert percentile(frame, 50).loc[10] == math.inf
    assert math.isnan(percentile(frame, 75).loc[10])


def test_a_percentile_beyond_100_is_refused(values):
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile(frame_of(values), 101)


def test_fractions_are_those_counted_by_hand(values):
    frame, sizes = frame_of(values), np.abs(values)
    small = (sizes > 0) & (sizes < np.finfo(np.float16).smallest_normal)
    assert fraction_below_normal(frame, FLOAT16).loc[10] == small.mean()
    assert fraction_below_normal(frame, BFLOAT16).loc[10] == 1 / len(values)
    assert element_counts(frame).loc[10] == len(values)
    assert nonzero_counts(frame).loc[10] == (values != 0).sum()
    tiny = (sizes > 0) & (sizes < np.finfo(np.float16).smallest_subnormal)
    assert 0 < fraction_below_smallest(frame, FLOAT16).loc[10] == tiny.mean()
    large = frame_of(np.array([65504.0, 65536.0, 1e6, 1.0]))
    assert fraction_above_largest(large, FLOAT16).loc[10] == 0.5


def test_bins_do_not_reach_to_the_smallest_numbers_of_bfloat16(values):
    with pytest.raises(ValueError, match="bfloat16 is 2\\^-133"):
        fraction_below_smallest(frame_of(values), BFLOAT16)


def test_the_loss_scale_is_the_largest_that_keeps_float16_in_range(values):
    frame = frame_of(values, values / 1000)
    scale = loss_scale(frame)
    with np.errstate(over="ignore"):
        assert np.isfinite((values * scale).astype(np.float16)).all()
        assert not np.isfinite((values * scale * 2).astype(np.float16)).all()
    small = np.abs(values * scale) < np.finfo(np.float16).smallest_normal
    lost = (small & (values != 0)).mean()
    assert fraction_lost(frame, scale).loc[10] == lost


def test_nothing_to_scale_has_no_scale():
    assert math.isnan(loss_scale(frame_of(np.zeros(3))))


def test_a_scale_that_is_no_power_of_two_is_refused(values):
    with pytest.raises(ValueError, match="power of two"):
        fraction_lost(frame_of(values), 1000.0)


def test_bins_in_long_form_hold_every_normal_magnitude(values):
    long = bins(frame_of(values, np.array([3.0, 0.0]), np.zeros(2)))
    first = long[long.layer == "layer0"]
    assert first["count"].sum() == 999
    assert list(first.exponent) == sorted(set(first.exponent))
    second = long[long.layer == "layer1"]
    assert (list(second.exponent), list(second["count"])) == ([1], [1])
    assert "layer2" not in set(long.layer)
