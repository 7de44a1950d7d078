"""Writes numbers and intervals as they appear in sentences."""

import math
from collections.abc import Callable
from itertools import pairwise

from analyses.wording.translatable import Numeral, Said, message

NumberFormat = Callable[[float], str]
_TWO_DIGITS_BELOW = 3.55  # first digits of a distance


def finite(value: float | None) -> float | None:
    """`value` as a float, or None if it is missing, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def number(value: float) -> str:
    """Three significant digits; with an exponent if below 0.001, or 100,000 and above."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        text = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
        return Numeral(text)
    return Numeral(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}")


def told_apart(first: float, second: float) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart, three at least, at most 12."""
    for digits in range(3, 13):
        if f"{first:.{digits}g}" != f"{second:.{digits}g}":
            break
    else:
        digits = 3
    if digits == 3:
        return number(first), number(second)
    return Numeral(f"{first:.{digits}g}"), Numeral(f"{second:.{digits}g}")


def percent(value: float) -> str:
    """A fraction as a percentage: 0.4327 is "43.3 %"."""
    return Numeral(f"{100 * value:.1f} %")


def share_bound(value: float) -> str:
    """A chosen fraction, such as a bound, as a percentage without decimals: 0.5 is "50 %"."""
    return Numeral(f"{100 * value:g} %")


def points(value: float) -> str:
    """A difference of fractions in percentage points, signed: 0.0512 is "+5.1 points"."""
    return Said("{count} points", count=Numeral(f"{100 * value:+.1f}"))


def p_value(value: float) -> str:
    """A p-value: "p = 0.032", or "p < 0.001"."""
    return Numeral("p < 0.001" if value < 0.001 else f"p = {value:.2g}")


def interval_text(low: float | None, high: float | None, form: NumberFormat = number) -> str:
    """An interval in brackets, to follow its number, without unit; "(no interval)" if None."""
    if low is None or high is None:
        return Said("(no interval)")
    ends = [Numeral(form(end).partition(" ")[0]) for end in (low, high)]
    level = Numeral("95 %")
    return Said("({level} interval {low} to {high})", level=level, low=ends[0], high=ends[1])


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    unit: str = "",
    level: float = 0.95,
) -> Said:
    """A number with its unit and interval, as in `54.3 % (95 % interval 51.2 to 57.9)`."""
    value, low, high = (finite(x) for x in (value, low, high))
    if value is None:
        return Said("not available")
    write = common_format([x for x in (low, value, high) if x is not None])
    amount, coverage = with_unit(write(value), unit), Numeral(f"{100 * level:g}\u00a0%")
    if low == value == high:
        return Said("{amount} (no spread)", amount=amount)
    if low is not None and high is not None:
        text, ends = (
            message("{amount} ({level} interval {low} to {high})"),
            {"low": low, "high": high},
        )
    elif low is not None:
        text, ends = message("{amount} ({level} interval from {low} upward)"), {"low": low}
    elif high is not None:
        text, ends = message("{amount} ({level} interval up to {high})"), {"high": high}
    else:
        return Said("{amount} (no interval)", amount=amount)
    return Said(
        text, amount=amount, level=coverage, **{name: write(end) for name, end in ends.items()}
    )


def with_unit(value: str, unit: str, space: str = "\u00a0") -> str:
    """A number as text with its unit, by default on one line."""
    if not unit:
        return value
    if unit == "%":
        return Numeral(f"{value}{space}%")
    return Said(f"{{value}}{space}{{unit}}", value=value, unit=Said(unit))


def common_format(values: list[float]) -> NumberFormat:
    """How to write numbers that appear together: with equal decimals, if that reads well."""
    largest = max(abs(value) for value in values)
    gaps = [b - a for a, b in pairwise(values) if b > a]
    spans_decades = min(values) > 0 and max(values) > 1000 * min(values)
    if not gaps or spans_decades or not 1e-3 <= largest < 1e5:
        return number
    decimals = min(6, max(0, _digits_told(min(gaps)) - 1 - power_of_ten(min(gaps))))
    return lambda value: with_decimals(value, decimals)


def _digits_told(gap: float) -> int:
    """How many digits of the distance to the nearer end of an interval are told.

    Two if they begin with 10 to 35, else one: the rule by which the Particle Data Group rounds
    (Review of Particle Physics, section 5.3 of its introduction).
    """
    return 2 if gap / 10.0 ** power_of_ten(gap) < _TWO_DIGITS_BELOW else 1


def power_of_ten(value: float) -> int:
    """The power of ten of the first digit of `value`, which is not 0."""
    return math.floor(math.log10(abs(value)))


def with_decimals(value: float, decimals: int) -> str:
    """`value` with that many decimals and with thousands separators."""
    text = f"{value:,.{decimals}f}"
    # A number that rounds to zero has no sign.
    return Numeral(text.lstrip("-") if float(text.replace(",", "")) == 0 else text)
