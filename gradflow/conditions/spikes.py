"""When a loss or a gradient norm leaves its own history upward.

A spike is a value far above the median of the values before it, in units of their spread: loss
spikes of large language models (Chowdhery et al. 2022, PaLM, section 5.1; Takase et al. 2023, Spike
no more), gradient norms that jump by orders of magnitude (Huang et al. 2025, SPAM). They are
commonly counted by standard deviations from a running mean (OLMo 2, 2025: seven). Here median and
median absolute deviation take their places, since spikes would widen the deviation that they are
measured by. Values above 0 are compared by their logarithms: losses and norms vary by factors, and
near convergence by large ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# How many values make the history, how many it needs, and how many spreads above is a spike.
HISTORY, LEAST, SPREADS = 32, 20, 7.0
# A spike also multiplies the median by this, by quantity: in a training without noise (on all data
# at once) the spread is next to nothing.
LEAST_FACTOR = {"loss": 1.5, "gradient_norm": 4.0}
_TO_SIGMA = 1.4826  # of the median absolute deviation of a normal distribution


def spreads_above(
    history: Sequence[float] | Array, value: float, factor: float, least_values: int = LEAST
) -> float:
    """How many spreads `value` lies above the median of the last of `history`.

    The spread is at least so large that a value of `factor` times the median is `SPREADS` above it.
    NaN if fewer than `least_values` of the history are finite; infinite for a value that is not.
    """
    known = np.asarray(history, dtype=float)[-HISTORY:]
    known = known[np.isfinite(known)]
    if len(known) < least_values:
        return float("nan")
    if not np.isfinite(value):
        return float("inf")
    if value > 0 and (known > 0).all():
        known, value, least = np.log(known), float(np.log(value)), float(np.log(factor))
    else:
        least = (factor - 1) * float(np.median(np.abs(known)))
    middle = float(np.median(known))
    spread = max(_TO_SIGMA * float(np.median(np.abs(known - middle))), least / SPREADS)
    if spread > 0:
        return (value - middle) / spread
    return float("inf") if value > middle else 0.0


def all_spreads_above(values: Sequence[float] | Array, factor: float) -> Array:
    """`spreads_above` of each of `values` over those before it: [values]."""
    array = np.asarray(values, dtype=float)
    return np.array(
        [
            spreads_above(array[max(0, place - HISTORY) : place], value, factor)
            for place, value in enumerate(array.tolist())
        ]
    )


def spike_score(loss: float, norm: float) -> float:
    """How far a step has left its history, from the spreads of its loss and its gradient norm.

    `SPREADS` or more is a spike. The loss decides alone, or the norm does and the loss is half as
    far above: a norm by itself leaves its history with one odd batch among many, and nothing is
    ill. Where one of them is unknown (NaN), the other decides.
    """
    if np.isnan(loss) or np.isnan(norm):
        return norm if np.isnan(loss) else loss
    return max(loss, min(norm, 2 * loss))
