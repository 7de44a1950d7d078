"""Formats estimates, table cells and dates as texts, the same in every report format."""

import math
from datetime import datetime
from typing import Any

import pandas as pd

from analyses.result import Estimate
from analyses.wording.numbers import number, power_of_ten, with_decimals
from analyses.wording.translatable import Joined, Numeral, Said, message

NOT_OBSERVED = "\u2013"  # a dash
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def estimate_text(estimate: Estimate) -> str:
    """The number with its unit and interval, as in `54.3 % (95 % interval 51.2 to 57.9)`."""
    return estimate.numbers


def cell_text(value: Any) -> str:
    """A table's cell as text; a missing value is a dash, never 0."""
    if isinstance(value, dict | list | tuple | set):
        return Joined([cell_text(item) for item in value], ", ")
    if value is None or pd.isna(value):
        return NOT_OBSERVED
    if pd.api.types.is_bool(value):
        return Said("yes" if value else "no")
    if pd.api.types.is_integer(value):
        return Numeral(f"{value:,}" if abs(value) >= 10_000 else str(value))
    if pd.api.types.is_float(value):
        return number(float(value)) if math.isfinite(value) else str(value)
    return str(value)


def column_texts(column: pd.Series) -> list[str]:
    """A column's cells as texts; floats share one number of decimals unless one is too small."""
    sizes = column.abs()[column.abs() > 0] if column.dtype.kind == "f" else pd.Series(dtype=float)
    largest = sizes.max() if len(sizes) else 0.0
    if not 0 < largest < 1e5:
        return [cell_text(value) for value in column]
    # Three significant digits of the largest value; a largest value of 1 gets three decimals too.
    decimals = 3 if largest <= 1 else max(0, 2 - power_of_ten(largest))
    if (sizes < 10.0**-decimals).any():
        return [cell_text(value) for value in column]
    return [
        NOT_OBSERVED if pd.isna(value) else with_decimals(float(value), decimals)
        for value in column
    ]


def date_text(moment: datetime) -> str:
    """A date in words with its time zone, such as `3 May 2025, 14:05 UTC`."""
    # strftime would write the month in the language of the locale.
    with_zone = message("{day} {month} {year}, {hour}:{minute} {zone}")
    return Said(
        with_zone if moment.tzname() else message("{day} {month} {year}, {hour}:{minute}"),
        day=f"{moment.day}",
        month=Said(MONTHS[moment.month - 1]),
        year=f"{moment.year}",
        hour=f"{moment:%H}",
        minute=f"{moment:%M}",
        zone=moment.tzname() or "",
    )
