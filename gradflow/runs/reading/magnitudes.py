"""Percentiles of recorded histograms, and the shares that a 16-bit format would lose.

Every function takes the table `activation_histograms` or `gradient_histograms` of a run, or some of
its rows. It returns a Series with one value per row and the frame's index. Positions within a bin
are unknown, so a percentile is the lower edge of its bin, a power of two: at most a factor of two
too low. All other results are exact unless stated otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format: exponents of its smallest, smallest normal and largest numbers."""

    name: str
    smallest: int
    smallest_normal: int
    largest: int


FLOAT16 = FloatFormat("float16", -24, -14, 15)
BFLOAT16 = FloatFormat("bfloat16", -133, -126, 127)
_LOWEST_BIN = -126


def element_counts(frame: pd.DataFrame) -> pd.Series:
    """The number of elements of each tensor."""
    return _outside(frame) + _counted(frame, lambda exponent: np.ones(len(exponent), dtype=bool))


def bins(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per filled bin: the columns that identify the tensor, `exponent` and `count`."""
    keys = [name for name in ("epoch", "step", "layer") if name in frame]
    long = frame[[*keys, "lowest_exponent", "counts"]].explode("counts").dropna()
    place = long.groupby(level=0).cumcount()
    long["exponent"] = long.lowest_exponent.astype("int64") + place
    long["count"] = long.counts.astype("int64")
    return long.loc[long["count"] > 0, [*keys, "exponent", "count"]].reset_index(drop=True)


def percentile(frame: pd.DataFrame, percent: float) -> pd.Series:
    """The lower edge of the bin that holds the q-th smallest of M magnitudes.

    q = ceil(M percent / 100), but at least 1. Zeros and underflow have the edge 0. Infinities come
    after all finite magnitudes, and nans come last.

    Raises `ValueError` unless 0 <= percent <= 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile must be between 0 and 100, not {percent}")
    return _series(frame, [_percentile(row, percent) for row in frame.itertuples()])


def fraction_below_normal(frame: pd.DataFrame, target: FloatFormat) -> pd.Series:
    """The share of nonzero elements below the format's smallest normal, among all elements."""
    return (frame.underflow + _below(frame, target.smallest_normal)) / element_counts(frame)


def nonzero_counts(frame: pd.DataFrame) -> pd.Series:
    """The number of nonzero elements of each tensor."""
    return element_counts(frame) - frame.zeros


def fraction_below_smallest(frame: pd.DataFrame, target: FloatFormat) -> pd.Series:
    """The share of nonzero elements below the format's smallest number, among all elements.

    Rounding to nearest turns those below half the smallest number into zero, and the others into
    the smallest number.

    Raises `ValueError` if the format has numbers smaller than the lowest bin.
    """
    if target.smallest < _LOWEST_BIN:
        raise ValueError(
            f"the smallest number of {target.name} is 2^{target.smallest}, but the lowest bin "
            f"starts at 2^{_LOWEST_BIN}: the elements below it are not known"
        )
    return (frame.underflow + _below(frame, target.smallest)) / element_counts(frame)


def fraction_above_largest(frame: pd.DataFrame, target: FloatFormat) -> pd.Series:
    """The share of finite elements of at least 2^(largest + 1), beyond the format's range."""
    above = _counted(frame, lambda exponent: exponent > target.largest)
    return above / element_counts(frame)


def loss_scale(frame: pd.DataFrame, target: FloatFormat = FLOAT16) -> float:
    """The largest power of two that scales all rows' finite magnitudes without leaving the range.

    For gradient histograms this is the loss scale that fits `target`: doubling it could take the
    largest recorded gradient out of range. nan if no row has a magnitude of at least 2^-126.
    """
    _, exponents, _ = _all_bins(frame)
    return math.ldexp(1.0, target.largest - int(exponents.max())) if len(exponents) else math.nan


def fraction_lost(frame: pd.DataFrame, scale: float, target: FloatFormat = FLOAT16) -> pd.Series:
    """The share of nonzero elements that stay below the smallest normal number after scaling.

    Raises `ValueError` unless `scale` is a power of two: only then bins move as a whole.
    """
    mantissa, exponent = math.frexp(scale)
    if mantissa != 0.5:
        raise ValueError(f"a scale must be a power of two, not {scale}")
    threshold = target.smallest_normal - (exponent - 1)
    return (frame.underflow + _below(frame, threshold)) / element_counts(frame)


def _outside(frame: pd.DataFrame) -> pd.Series:
    return frame.zeros + frame.underflow + frame.infinite + frame.nan


def _below(frame: pd.DataFrame, exponent: int) -> pd.Series:
    return _counted(frame, lambda own: own < exponent)


def _counted(frame: pd.DataFrame, chosen: Callable[[Integers], npt.NDArray[np.bool_]]) -> pd.Series:
    """The number of elements of each tensor in the bins whose exponents are `chosen`."""
    rows, exponents, counts = _all_bins(frame)
    kept = np.where(chosen(exponents), counts, 0)
    # Sums of numbers of elements are exact in float64 up to 2^53.
    sums = np.bincount(rows, weights=kept, minlength=len(frame)).astype(np.int64)
    return pd.Series(sums, index=frame.index, dtype=None if len(frame) else "float64")


def _all_bins(frame: pd.DataFrame) -> tuple[Integers, Integers, Integers]:
    """All bins of all rows, one after another: place of the row, exponent and count.

    A run has a row for each layer and step, so they are not gone through one by one.
    """
    sizes = np.fromiter(map(len, frame.counts), dtype=np.int64, count=len(frame))
    total = int(sizes.sum())
    counts = np.concatenate([[], *frame.counts]).astype(np.int64)
    rows = np.repeat(np.arange(len(frame)), sizes)
    places = np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    lowest = frame.lowest_exponent.astype("float64").to_numpy()[rows]
    return rows, lowest.astype(np.int64) + places, counts


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
