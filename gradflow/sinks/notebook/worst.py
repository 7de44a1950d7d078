"""The layer that stands out most, and how far."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def worst_of(names: Sequence[str], magnitudes: Any, row: str = "layer") -> tuple[str, str]:
    """The name of the worst layer, and in words how it differs from the others.

    It is the first whose magnitude is nan or infinite; else the first whose magnitude is zero; else
    the one farthest from the median of all layers, in ratio. With fewer than two layers there is
    none, and both are empty.

    Args:
        names: the layers.
        magnitudes: of each layer, masked if it has none.
        row: what is compared, if not layers.
    """
    known = np.ma.masked_array(magnitudes)
    values = known.filled(np.nan)
    recorded = ~np.ma.getmaskarray(known)
    if recorded.sum() < 2:
        return "", ""
    broken = np.flatnonzero(recorded & ~np.isfinite(values))
    if len(broken):
        return names[broken[0]], _with_others("not finite", len(broken))
    zero = np.flatnonzero(recorded & (values == 0))
    if len(zero):
        return names[zero[0]], _with_others("zero", len(zero))
    median = float(np.median(values[recorded]))
    # In logarithms, in which no ratio overflows.
    distances = np.where(recorded, np.log10(np.where(recorded, values, 1)) - np.log10(median), 0)
    place = int(np.argmax(np.abs(distances)))
    return names[place], f"{ratio_in_words(float(distances[place]))} the median of all {row}s"


def ratio_in_words(logarithm: float) -> str:
    """A ratio given as its decimal logarithm: `1/530 of`, or `12 times`."""
    size = abs(logarithm)
    number = f"10^{size:.0f}" if size >= 6 else f"{_two_digits(10**size):,g}"
    return f"1/{number} of" if logarithm < 0 else f"{number} times"


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _with_others(words: str, count: int) -> str:
    more = count - 1
    return f"{words}, as {more} other{'s are' if more > 1 else ' is'}" if more else words
