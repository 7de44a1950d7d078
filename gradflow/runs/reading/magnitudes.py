"""What a table of histograms says: percentiles, and what a 16-bit format would lose.

Every function takes `activation_histograms` or `gradient_histograms` of a run, or rows of one, and
gives one value a row as a Series with the frame's index. Where a value lies within its bin is not
known: percentiles are those of the bin's lower edge, a power of two, and so at most a factor of
two too low. All else is exact but where it is said.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class FloatFormat:
    """A floating format: exponents of its smallest, smallest normal and largest numbers."""

    name: str
    smallest: int
    smallest_normal: int
    largest: int


FLOAT16 = FloatFormat("float16", -24, -14, 15)
BFLOAT16 = FloatFormat("bfloat16", -133, -126, 127)
_LOWEST_BIN = -126


def element_counts(frame: pd.DataFrame) -> pd.Series:
    """The number of elements of each tensor."""
    return _outside(frame) + _series(frame, [sum(counts) for counts in frame.counts])


def bins(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a filled bin: the columns of `frame` that name the tensor, `exponent` and `count`."""
    keys = [name for name in ("epoch", "step", "layer") if name in frame]
    long = frame[[*keys, "lowest_exponent", "counts"]].explode("counts").dropna()
    place = long.groupby(level=0).cumcount()
    long["exponent"] = long.lowest_exponent.astype("int64") + place
    long["count"] = long.counts.astype("int64")
    return long.loc[long["count"] > 0, [*keys, "exponent", "count"]].reset_index(drop=True)


def percentile(frame: pd.DataFrame, percent: float) -> pd.Series:
    """The lower edge of the bin that holds the q-th smallest of M magnitudes.

    q = ceil(M percent / 100), 1 at least. Zeros and underflow have the edge 0; infinities come
    after all finite magnitudes, and nans last.

    Raises `ValueError` unless 0 <= percent <= 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
    return _series(frame, [_percentile(row, percent) for row in frame.itertuples()])


def fraction_below_normal(frame: pd.DataFrame, target: FloatFormat) -> pd.Series:
    """The share of elements that are not zero, and smaller than the format's smallest normal."""
    return (frame.underflow + _below(frame, target.smallest_normal)) / element_counts(frame)


def nonzero_counts(frame: pd.DataFrame) -> pd.Series:
    """The number of elements of each tensor that are not zero."""
    return element_counts(frame) - frame.zeros


def fraction_below_smallest(frame: pd.DataFrame, target: FloatFormat) -> pd.Series:
    """The share of elements that are not zero, and smaller than any number of the format but zero.

    Rounded to nearest, those below half the smallest number become zero, and the others the
    smallest number itself.

    Raises `ValueError` for a format that has smaller numbers than the bins tell apart.
    """
    if target.smallest < _LOWEST_BIN:
        raise ValueError(
            f"the smallest number of {target.name} is 2^{target.smallest}, and bins end at "
            f"2^{_LOWEST_BIN}: what is smaller than it cannot be told"
        )
    return (frame.underflow + _below(frame, target.smallest)) / element_counts(frame)


def fraction_above_largest(frame: pd.DataFrame, target: FloatFormat) -> pd.Series:
    """The share of finite elements that are at least 2^(largest + 1), beyond the format's range."""
    above = [
        sum(count for exponent, count in _row_bins(row) if exponent > target.largest)
        for row in frame.itertuples()
    ]
    return _series(frame, above) / element_counts(frame)


def loss_scale(frame: pd.DataFrame, target: FloatFormat = FLOAT16) -> float:
    """The largest power of two by which all rows' finite magnitudes can grow and stay in range.

    For the histograms of gradients, the loss scale that fits `target`: one more doubling could take
    the largest gradient seen out of its range. nan where no row has a magnitude above 2^-126.
    """
    tops = [
        int(row.lowest_exponent) + len(row.counts) - 1
        for row in frame.itertuples()
        if len(row.counts)
    ]
    return math.ldexp(1.0, target.largest - max(tops)) if tops else math.nan


def fraction_lost(frame: pd.DataFrame, scale: float, target: FloatFormat = FLOAT16) -> pd.Series:
    """The share of elements, not zero, that `scale` leaves below the format's smallest normal.

    Raises `ValueError` unless `scale` is a power of two, which moves whole bins.
    """
    mantissa, exponent = math.frexp(scale)
    if mantissa != 0.5:
        raise ValueError(f"a scale must be a power of two to move whole bins, not {scale}")
    threshold = target.smallest_normal - (exponent - 1)
    return (frame.underflow + _below(frame, threshold)) / element_counts(frame)


def _outside(frame: pd.DataFrame) -> pd.Series:
    return frame.zeros + frame.underflow + frame.infinite + frame.nan


def _below(frame: pd.DataFrame, exponent: int) -> pd.Series:
    below = [
        sum(count for own, count in _row_bins(row) if own < exponent) for row in frame.itertuples()
    ]
    return _series(frame, below)


def _row_bins(row: object) -> list[tuple[int, int]]:
    counts = row.counts  # type: ignore[attr-defined]
    if not len(counts):
        return []
    first = int(row.lowest_exponent)  # type: ignore[attr-defined]
    return [(first + place, int(count)) for place, count in enumerate(counts)]


def _percentile(row: object, percent: float) -> float:
    filled = _row_bins(row)
    edges = [0.0, *(math.ldexp(1.0, exponent) for exponent, _ in filled), math.inf, math.nan]
    zeros, underflow = row.zeros, row.underflow  # type: ignore[attr-defined]
    infinite, nans = row.infinite, row.nan  # type: ignore[attr-defined]
    counts = [zeros + underflow, *(count for _, count in filled), infinite, nans]
    reached = np.cumsum(counts)
    rank = max(1, math.ceil(reached[-1] * percent / 100))
    return edges[int(np.searchsorted(reached, rank))]


def _series(frame: pd.DataFrame, values: list[float] | list[int]) -> pd.Series:
    return pd.Series(values, index=frame.index, dtype="float64" if not values else None)
