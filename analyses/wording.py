"""How numbers, intervals and lists read in sentences."""

import math
from collections.abc import Callable, Sequence

Form = Callable[[float], str]


def finite(value: float | None) -> float | None:
    """`value` as a float, or None where it is missing, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def number(value: float) -> str:
    """Three significant digits; with an exponent below 0.001 and from 100,000 on."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A fraction as a percentage: 0.4327 is "43.3 %"."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of fractions in percentage points, signed: 0.0512 is "+5.1 points"."""
    return f"{100 * value:+.1f} points"


def p_value(value: float) -> str:
    """A p-value: "p = 0.032", or "p < 0.001"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def between(low: float | None, high: float | None, form: Form = number) -> str:
    """An interval in brackets after its number; says so where there is none."""
    if low is None or high is None:
        return "(no interval)"
    return f"(95 % interval {form(low)} to {form(high)})"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 seed", "3 seeds", "2 classes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def listing(items: Sequence[str]) -> str:
    """Names in a sentence: "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def slug(text: str) -> str:
    """`text` as a key: letters and digits as they are, everything else a hyphen."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)
