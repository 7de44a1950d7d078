"""Puts estimates, cells of tables and dates into words, the same ones for every format."""

import math
from datetime import datetime
from itertools import pairwise
from typing import Any

import pandas as pd

from analyses.result import Estimate
from analyses.wording import Form, finite, number

NOT_OBSERVED = "\u2013"  # a dash
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def estimate_text(estimate: Estimate) -> str:
    """The number with its unit and interval, as in `54.3 % (95 % interval 51.2 to 57.9)`."""
    value, low, high = (finite(x) for x in (estimate.value, estimate.low, estimate.high))
    if value is None:
        return "not available"
    write = _common_form([x for x in (low, value, high) if x is not None])
    text = f"{write(value)}\u00a0{estimate.unit}" if estimate.unit else write(value)
    coverage = f"{100 * estimate.level:g}\u00a0% interval"
    if low is not None and high is not None:
        return f"{text} ({coverage} {write(low)} to {write(high)})"
    if low is not None:
        return f"{text} ({coverage} from {write(low)} upward)"
    if high is not None:
        return f"{text} ({coverage} up to {write(high)})"
    return f"{text} (no interval)"


def cell(value: Any) -> str:
    """A table's cell as text; a missing value is a dash, never 0."""
    if isinstance(value, dict | list | tuple | set):
        return ", ".join(cell(item) for item in value)
    if value is None or pd.isna(value):
        return NOT_OBSERVED
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if pd.api.types.is_integer(value):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if pd.api.types.is_float(value):
        return number(float(value)) if math.isfinite(value) else str(value)
    return str(value)


def column_cells(column: pd.Series) -> list[str]:
    """A column's cells as texts; its fractions share one count of decimals where none is lost."""
    sizes = column.abs()[column.abs() > 0] if column.dtype.kind == "f" else pd.Series(dtype=float)
    largest = sizes.max() if len(sizes) else 0.0
    if not 0 < largest < 1e5:
        return [cell(value) for value in column]
    # Three digits of the largest, where a share of 1 counts as one below 1.
    decimals = 3 if largest <= 1 else max(0, 2 - _magnitude(largest))
    if (sizes < 10.0**-decimals).any():
        return [cell(value) for value in column]
    return [
        NOT_OBSERVED if pd.isna(value) else _with_decimals(float(value), decimals)
        for value in column
    ]


def date_text(moment: datetime) -> str:
    """A date in words with its time zone, such as `3 May 2025, 14:05 UTC`."""
    # The months of strftime would follow the reader's locale.
    month = MONTHS[moment.month - 1]
    return f"{moment.day} {month} {moment.year}, {moment:%H:%M} {moment.tzname() or ''}".strip()


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def _common_form(values: list[float]) -> Form:
    """How to write numbers that stand together: one count of decimals where that reads well."""
    largest = max(abs(value) for value in values)
    gaps = [b - a for a, b in pairwise(values) if b > a]
    spans_decades = min(values) > 0 and max(values) > 1000 * min(values)
    if not gaps or spans_decades or not 1e-3 <= largest < 1e5:
        return number
    # Two digits of the distance between the estimate and the nearer end of its interval.
    decimals = min(6, max(0, 1 - _magnitude(min(gaps))))
    return lambda value: _with_decimals(value, decimals)


def _with_decimals(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    # What rounds to zero has no sign.
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text
