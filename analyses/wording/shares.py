"""Says shares of a whole that noise drives out of 0 to 100 %, so that one can understand them."""

from enum import Enum

from analyses.wording.numbers import finite, percent, with_interval
from analyses.wording.translatable import Said, message

_WHOLE = 100.0


class Reach(Enum):
    """Where a share lies that was computed by subtracting noise."""

    NOTHING = "nothing"
    PART = "part"
    EVERYTHING = "everything"


_WORDS = {
    Reach.NOTHING: message("nothing that can be told from noise"),
    Reach.EVERYTHING: message("everything, as far as noise lets one tell"),
}


def reach_of_share(percentage: float) -> Reach:
    """Whether a share in percent is none, a part or all of the whole."""
    if percentage <= 0:
        return Reach.NOTHING
    return Reach.EVERYTHING if percentage > _WHOLE else Reach.PART


def share_text(share: float) -> str:
    """A fraction of a whole as a percentage, or in words: "80.5 %"."""
    reach = reach_of_share(100 * share)
    return percent(share) if reach is Reach.PART else _WORDS[reach]


def share_with_interval(
    value: float, low: float | None, high: float | None, level: float = 0.95
) -> str:
    """A share in percent with the possible part of its interval, in words if it is none or all.

    What lies beyond 0 to 100 with its whole interval is not noise: its numbers are kept.
    """
    reach = reach_of_share(value)
    beyond = (high is not None and high <= 0 > value) or (low is not None and low >= _WHOLE < value)
    if beyond or finite(value) is None:
        return with_interval(value, low, high, "%", level)
    low, high = (None if end is None else _clamped(end) for end in (low, high))
    if reach is Reach.PART:
        return with_interval(value, low, high, "%", level)
    told = with_interval(_clamped(value), low, high, "", level)
    return Said(told.template, **{**told.places, "amount": _WORDS[reach]})


def _clamped(value: float) -> float:
    return min(max(value, 0.0), _WHOLE)
