"""When a loss or a gradient norm leaves its own history upward.

A spike is a value far above the median of the values before it, in units of their spread: loss
spikes of large language models (Chowdhery et al. 2022, PaLM, section 5.1; Takase et al. 2023, Spike
no more), gradient norms that jump by orders of magnitude (Huang et al. 2025, SPAM). They are
commonly counted by standard deviations from a running mean (OLMo 2, 2025: seven). Here median and
median absolute deviation take their places, since spikes would widen the deviation that they are
measured by. Values above 0 are compared by their logarithms: losses and norms vary by factors, and
near convergence by large ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# How many values make the history, how many it needs, and how many spreads above is a spike.
HISTORY, LEAST, SPREADS = 32, 20, 7.0
# A spike also multiplies the median by this, by quantity: in a training without noise (on all data
# at once) the spread is next to nothing.
LEAST_FACTOR = {"loss": 1.5, "gradient_norm": 4.0}
# A training has nearly converged where its loss is this share of that of its first steps.
CONVERGED = 0.1
_START = 3  # losses
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
        least = (factor - 1) * _median(np.abs(known))
    middle = _median(known)
    spread = max(_TO_SIGMA * _median(np.abs(known - middle)), least / SPREADS)
    if spread > 0:
        return (value - middle) / spread
    return float("inf") if value > middle else 0.0


def _median(values: Sequence[float] | Array) -> float:
    """The median of a few numbers, none of them NaN: numpy's takes ten times as long for them."""
    ordered = sorted(values.tolist() if isinstance(values, np.ndarray) else values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return float((ordered[middle - 1] + ordered[middle]) / 2)


def spike_score(loss: float, norm: float) -> float:
    """How far a step has left its history, from the spreads of its loss and its gradient norm.

    `SPREADS` or more is a spike. The loss decides alone, or the norm does and the loss is half as
    far above: a norm by itself leaves its history with one odd batch among many, and nothing is
    ill. Where one of them is unknown (NaN), the other decides.
    """
    if np.isnan(loss) or np.isnan(norm):
        return norm if np.isnan(loss) else loss
    return max(loss, min(norm, 2 * loss))


@dataclass(frozen=True)
class Look:
    """What a step's loss and gradient norm say.

    Fields:
        score: `SPREADS` or more is a spike; NaN if too little is known.
        left: the quantity that left its own history the farthest, `loss` or `gradient_norm`, spike
            or not; empty if none did.
        median: of the losses before; of the gradient norms, where no loss is known.
    """

    score: float
    left: str
    median: float


class History:
    """The losses and gradient norms of a training, looked at step by step."""

    def __init__(self) -> None:
        self._last: dict[str, list[float]] = {name: [] for name in LEAST_FACTOR}
        self._first: list[float] = []  # losses

    def look(self, loss: float | None, norm: float | None) -> Look:
        """Compare the next step with those before; None for what is unknown, nan is a value."""
        values = {"loss": loss, "gradient_norm": norm}
        spreads = {
            name: float("nan")
            if value is None
            else spreads_above(self._last[name], value, LEAST_FACTOR[name])
            for name, value in values.items()
        }
        told = "gradient_norm" if loss is None else "loss"
        median = _median(self._last[told]) if self._last[told] else float("nan")
        score = spike_score(spreads["loss"], spreads["gradient_norm"])
        if loss is not None and self._only_near_convergence(loss, median):
            score = min(score, SPREADS / 2)
        left = max(spreads, key=lambda name: -1.0 if isnan(spreads[name]) else spreads[name])
        for name, value in values.items():
            if value is not None and np.isfinite(value):
                self._last[name] = [*self._last[name], value][-HISTORY:]
        if loss is not None and np.isfinite(loss) and len(self._first) < LEAST:
            self._first.append(loss)
        return Look(score, left if spreads[left] >= SPREADS else "", median)

    def _only_near_convergence(self, loss: float, median: float) -> bool:
        """Whether the loss is so small by now that a single sample moves it by large factors.

        Then only a step that undoes more than all progress is a spike: one of as many times the
        loss of the start as elsewhere of the median before. One that falls back to the start is
        none, for ReLU networks at a loss next to 0 do so and come back. The start are the first
        three losses, for a loss may be next to 0 well before the history is full.
        """
        if len(self._first) < LEAST:
            return False
        first, start = _median(self._first), _median(self._first[:_START])
        return 0 <= median < CONVERGED * first and loss < LEAST_FACTOR["loss"] * max(first, start)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes, as lists."""
        last = {name: list(one) for name, one in self._last.items()}
        return {"last": last, "first": list(self._first)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; nothing, if it is empty."""
        self._last = {name: list(state.get("last", {}).get(name, [])) for name in LEAST_FACTOR}
        self._first = list(state.get("first", []))
