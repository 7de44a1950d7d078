"""Rows that compare a predicted number with the measured one, and the table of all rows."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH = 80


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference between a measured mean and the prediction: the sum of three parts.

    Fields:
        absolute: in the unit of the quantity.
        relative: multiplied by the prediction, for effects of a finite width.
        errors: multiplied by the standard error of the mean over networks.
    """

    absolute: float = 0.0
    relative: float = 0.0
    errors: float = 0.0

    def width(self, predicted: float, error: float) -> float:
        """The tolerance on a mean with standard error `error`."""
        return self.absolute + self.relative * abs(predicted) + self.errors * error

    def __str__(self) -> str:
        parts = []
        if self.absolute:
            parts.append(f"{self.absolute:g}")
        if self.relative:
            parts.append(f"{self.relative:.0%} for finite width")
        if self.errors:
            parts.append(f"{self.errors:g} standard errors")
        return " + ".join(parts)


@dataclass(frozen=True)
class Row:
    """One quantity: its prediction, and its mean and standard error over networks (nan for one)."""

    quantity: str
    predicted: float
    measured: float
    error: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the mean is finite and within the tolerance."""
        return abs(self.measured - self.predicted) <= self.tolerance


@dataclass(frozen=True)
class Item:
    """The rows of one paper, with the networks that were run and the reason for the tolerance."""

    paper: str
    setting: str
    tolerance: str
    rows: tuple[Row, ...]


def compare(quantity: str, predicted: float, values: Sequence[float], tolerance: Tolerance) -> Row:
    """The row for `values`, one per network, all with the expectation `predicted`."""
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    width = tolerance.width(predicted, 0.0 if math.isnan(error) else error)
    return Row(quantity, predicted, mean, error, width)


def table(items: Sequence[Item]) -> str:
    """All items as one table, at most `WIDTH` columns wide.

    Each item has a line with its paper, lines with its networks and tolerance, and then its rows.
    """
    head = f"{'':34}{'predicted':>10}{'measured':>10}{'std error':>10}{'tolerance':>10}  ok"
    lines = [head, "-" * WIDTH]
    for item in items:
        lines += [item.paper, *_wrap(item.setting), *_wrap(f"tolerance: {item.tolerance}")]
        lines += [_line(row) for row in item.rows]
    rows = [row for item in items for row in item.rows]
    lines += ["-" * WIDTH, f"{sum(row.agrees for row in rows)} of {len(rows)} agree"]
    return "\n".join(lines)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _line(row: Row) -> str:
    numbers = (row.predicted, row.measured, row.error, row.tolerance)
    cells = "".join(f"{_number(number):>10}" for number in numbers)
    return f"  {row.quantity:<32}{cells}  {'yes' if row.agrees else 'NO'}"


def _number(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.4g}"
