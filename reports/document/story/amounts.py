"""Writes the numbers of the story: few digits, and shares that noise drove too far in words."""

from analyses.result import Estimate
from analyses.wording.numbers import number, with_unit
from analyses.wording.shares import Reach, reach_of_share
from analyses.wording.translatable import Numeral, Said, message
from reports.document.story.sentences import ALL, INTERVAL, NONE, PART


def share(estimate: Estimate) -> str:
    """A share of a whole as a percentage: "64 %"."""
    assert estimate.value is not None
    value = estimate.value if estimate.unit == "%" else 100 * estimate.value
    return with_unit(f"{value:.0f}" if value >= 1 else number(value), "%")


def part_of_movement(estimate: Estimate) -> str:
    """A share of the movement of accuracy in words: "80 % of the movement".

    Noise is subtracted from what such shares are computed from, so that they may leave 0 to 100 %.
    """
    assert estimate.value is not None
    reach = reach_of_share(estimate.value)
    if reach is Reach.PART:
        return Said(PART, share=share(estimate))
    return message(NONE if reach is Reach.NOTHING else ALL)


def percentage(estimate: Estimate) -> str:
    """A percentage with one decimal: "72.5 %"."""
    assert estimate.value is not None
    return with_unit(f"{estimate.value:.1f}", "%")


def points(value: float) -> str:
    """The size of a difference in percentage points, without its sign: "35.8"."""
    return Numeral(f"{abs(value):.1f}")


def interval_of_points(estimate: Estimate) -> str:
    """The interval of the size of a difference, in brackets; "" if there is none."""
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return ""
    if (estimate.value or 0) < 0:
        low, high = -high, -low
    return _interval(f"{low:.1f}", f"{high:.1f}")


def interval_of_times(estimate: Estimate) -> str:
    """The interval of a factor, in brackets, as `times` writes it; "" if there is none.

    An interval with 1 inside has no such words: it grows at one end, and shrinks at the other.
    """
    low, high = estimate.low, estimate.high
    if low is None or high is None or low <= 0 or low < 1 < high:
        return ""
    ends = sorted((low, high), key=lambda end: max(end, 1 / end))
    return _interval(times(ends[0]), times(ends[1]))


def interval_of_share(estimate: Estimate) -> str:
    """The interval of a share in percent, in brackets; "" if noise drives it out of 0 to 100."""
    low, high = estimate.low, estimate.high
    scale = 1 if estimate.unit == "%" else 100
    if low is None or high is None or low < 0 or scale * high > 100:
        return ""
    return _interval(f"{scale * low:.0f}", f"{scale * high:.0f}")


def times(factor: float) -> str:
    """How many times something grows, or shrinks if `factor` is below 1: 0.25 is "4.0"."""
    larger = factor if factor >= 1 else 1 / factor
    if larger >= 1e5:
        return number(larger)
    return Numeral(f"{larger:.1f}" if larger < 10 else f"{larger:,.0f}")


def _interval(low: str, high: str) -> str:
    return Said(INTERVAL, low=Numeral(low), high=Numeral(high))
