"""The reading of one condition from one run: its number, bound, layer and time.

The median over the last recorded steps decides whether the condition holds. The median over the
first steps shows whether it held from the start.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.result import Verdict
from analyses.statistics import Array
from analyses.statistics.basics.distributions import fair_coin_quantile
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import finite
from analyses.wording.translatable import Numeral, Said
from gradflow.conditions import bounds

LAST_STEPS = bounds.LAST_STEPS  # largest number of recorded steps in the window at either end
MIN_WINDOW = bounds.MIN_WINDOW  # fewer steps give no 95 % interval of a median by order statistics
OVERLOOKED = bounds.OVERLOOKED  # a third of the shortest window: its median does not notice


@dataclass(frozen=True)
class Reading:
    """One condition of one run.

    Fields:
        condition: its name.
        verdict: whether the run has it at the end.
        quantity: what was measured, in words.
        layer: the layer with the worst number; empty if the number is of the whole network.
        value, low, high: median over the last recorded steps with its 95 % interval; None if it
            could not be computed.
        early_value: the same median over the first recorded steps.
        held_early: whether the condition held over the first steps.
        threshold: the bound that `value` is compared with.
        rule: the bound in words.
        method: how the number was computed, and from how many steps.
        note: a sentence on what was left out, or why there is no verdict; may be empty.
        said: the number with what it is of, as a clause, if "the <quantity> is <value>" is not apt.
        cause: why the run has the condition, and where that can be mended, in sentences; empty if
            the recording does not tell, or the run does not have it.
        next_step: what to do if the verdict is open and more steps would not decide it, or if the
            cause asks for something else than the condition by itself.
        since: the first recorded step from which on the condition held without a break to the last
            one; None if the recording does not show it.
        otherwise: what else it could be, and which measurement would tell, in a sentence; empty if
            nothing else looks like this.
        link: the condition with its number and place, as a clause of a chain; if empty, the words
            of the condition stand there, with the layer.
        tells_when: whether `said` tells in which steps: then it holds in these, and not from
            `since` on.
    """

    condition: str
    verdict: Verdict
    quantity: str
    layer: str
    value: float | None
    low: float | None
    high: float | None
    early_value: float | None
    held_early: bool
    threshold: float
    rule: str
    method: str
    note: str = ""
    said: str = ""
    cause: str = ""
    next_step: str = ""
    since: int | None = None
    otherwise: str = ""
    link: str = ""
    tells_when: bool = False

    @property
    def when(self) -> str:
        """The part of the run in which the condition held; empty if it never did."""
        if self.verdict is Verdict.SUPPORTED:
            if self.tells_when:
                return ""
            if self.held_early:
                return Said("from the first to the last steps")
            if self.since is None:
                return Said("in the last steps")
            return Said("from step {step} on", step=Numeral(f"{self.since}"))
        return Said("in the first steps only") if self.held_early else ""


def window_size(steps: int, max_steps: int = LAST_STEPS) -> int:
    """Steps in the window at either end: a third of `steps`, from 6 to `max_steps`."""
    return min(steps, max(MIN_WINDOW, min(max_steps, ceil(steps / 3))))


@dataclass(frozen=True)
class WindowMedians:
    """Medians of a series over its last and first steps; None if nothing was finite."""

    value: float | None
    low: float | None
    high: float | None
    early_value: float | None
    method: str


def window_medians(series: Array, max_steps: int = LAST_STEPS) -> WindowMedians:
    """Medians of `series`, shape [steps], over its last and its first steps.

    Values that are not finite are left out. The interval belongs to the median of the last steps;
    it comes from order statistics (distribution-free; exact for independent steps).
    """
    array = np.asarray(series, dtype=float)
    size = window_size(len(array), max_steps)
    last, first = (part[np.isfinite(part)] for part in (array[-size:], array[:size]))
    low, high = median_interval(last)
    return WindowMedians(
        finite(float(np.median(last))) if len(last) else None,
        low,
        high,
        finite(float(np.median(first))) if len(first) else None,
        f"median over the last {size} of {len(array)} recorded steps, interval by order statistics"
        if low is not None
        else f"median over {len(last)} recorded steps; {MIN_WINDOW} are needed for an interval",
    )


def median_interval(values: Array, level: float = 0.95) -> tuple[float | None, float | None]:
    """Distribution-free interval of a median from order statistics; None for too few values.

    The ends are the k-th smallest and the k-th largest value, with the largest k for which
    P(Binomial(n, 1/2) < k) is at most (1 - level) / 2.
    """
    ordered = np.sort(values)
    tail = (1 - level) / 2
    k = fair_coin_quantile(tail, len(ordered)) if len(ordered) else 0
    # It is the smallest k with P(X <= k) >= tail, hence P(X < k) < tail.
    if k < 1:
        return None, None
    return float(ordered[k - 1]), float(ordered[-k])


def verdict_of(one: WindowMedians, bound: float, *, above: bool) -> Verdict:
    """Supported if the interval lies on the ill side of `bound`: above or below it."""
    if above:
        return verdict_above(one.low, one.high, bound)
    if one.low is None or one.high is None:
        return Verdict.INCONCLUSIVE
    return verdict_above(-one.high, -one.low, -bound)


def is_beyond(value: float | None, bound: float, *, above: bool) -> bool:
    """Whether a number lies on the ill side of `bound`: above or below it."""
    return value is not None and (value > bound if above else value < bound)


def held_since(ill: NDArray[np.bool_], steps: Array, breaks: int = 0) -> int | None:
    """The step from which on `ill` holds without a break; None if it does not hold at the end.

    Both have shape [recorded steps]; `steps` are their numbers in the training. Breaks of up to
    `breaks` recorded steps are overlooked, for a noisy number crosses its bound now and then.
    """
    held = np.flatnonzero(ill)
    if not len(held):
        return None
    well = np.diff(np.append(held, len(ill))) - 1  # steps without it behind each step with it
    if well[-1] > breaks:
        return None
    ends = np.flatnonzero(well > breaks)
    return int(steps[held[ends[-1] + 1 if len(ends) else 0]])


def since_beyond(series: pd.Series, bound: float, *, above: bool) -> int | None:
    """The step from which on a noisy number lies on the ill side of `bound`, see `held_since`.

    `series` has the level "step" in its index, as a column of `pivot_by_step`; what is not finite
    is left out.
    """
    known = series[np.isfinite(series.to_numpy(dtype=float))]
    values, steps = known.to_numpy(dtype=float), known.index.get_level_values("step").to_numpy()
    return held_since(values > bound if above else values < bound, steps, OVERLOOKED)
