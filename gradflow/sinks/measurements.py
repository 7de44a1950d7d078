"""Turns rows of tables into the numbers of each step, by name."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from gradflow.sinks.names import (
    EPOCH_PREFIX,
    MAGNITUDES,
    ROW_COLUMN,
    SCALARS,
    Choice,
    full_name,
)

Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Magnitudes:
    """How many elements have a magnitude of 2^e <= |x| < 2^(e+1), for e from `lowest` on.

    Zeros, values below 2^-126 and values that are not finite are in none of the bins.
    """

    lowest: int
    counts: tuple[int, ...]

    @property
    def edges(self) -> list[int]:
        """The edges of the bins as log2 |x|: one more than there are bins."""
        return list(range(self.lowest, self.lowest + len(self.counts) + 1))


@dataclass
class StepValues:
    """What is written of one step, by name; `ends_epoch` if it was the last of its epoch."""

    epoch: int
    step: int
    scalars: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Magnitudes] = field(default_factory=dict)
    ends_epoch: bool = False


def measurements(tables: Tables, choice: Choice) -> list[StepValues]:
    """The chosen numbers in rows of `tables`, in order of step.

    `tables` are masked arrays or lists by table and column, as the tracer records them. Missing
    values are left out; nan and infinite ones are values.
    """
    found: dict[tuple[int, int], StepValues] = {}
    for table, columns in tables.items():
        if table in SCALARS:
            _add_scalars(found, table, columns, choice)
        if table in MAGNITUDES:
            _add_magnitudes(found, table, columns, choice)
        if table == "epochs":
            _add_epochs(found, columns, choice)
    return [found[key] for key in sorted(found)]


class EpochEnds:
    """Keeps of each epoch only the last value of each name, under the step that it is of."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, float | Magnitudes]] = {}
        self._epoch = 0

    def add(self, values: StepValues) -> list[StepValues]:
        """Take the values of a step; return those of the epochs that are over."""
        over = self.rest() if values.epoch != self._epoch else []
        self._epoch = values.epoch
        for name, value in values.scalars.items():
            self._last[name] = (values.step, value)
        for name, magnitudes in values.histograms.items():
            self._last[name] = (values.step, magnitudes)
        return [*over, *self.rest()] if values.ends_epoch else over

    def rest(self) -> list[StepValues]:
        """The last values of the epoch under way, which are forgotten."""
        by_step: dict[int, StepValues] = {}
        for name, (step, value) in self._last.items():
            values = by_step.setdefault(step, StepValues(self._epoch, step))
            if isinstance(value, Magnitudes):
                values.histograms[name] = value
            else:
                values.scalars[name] = value
        self._last.clear()
        return [by_step[step] for step in sorted(by_step)]


def _at(found: dict[tuple[int, int], StepValues], epoch: Any, step: Any) -> StepValues:
    key = (int(step), int(epoch))
    if key not in found:
        found[key] = StepValues(int(epoch), int(step))
    return found[key]


def _add_scalars(
    found: dict[tuple[int, int], StepValues],
    table: str,
    columns: Mapping[str, Any],
    choice: Choice,
) -> None:
    for column, quantity in SCALARS[table].items():
        if column not in columns or not choice.may_take(quantity):
            continue
        values = np.ma.asanyarray(columns[column])
        missing = np.ma.getmaskarray(values)
        numbers = np.asarray(values.filled(0) if missing.any() else values.data, dtype=float)
        for place, name, entry in _chosen(found, table, columns, choice, quantity):
            if not missing[place]:
                entry.scalars[name] = float(numbers[place])


def _add_magnitudes(
    found: dict[tuple[int, int], StepValues],
    table: str,
    columns: Mapping[str, Any],
    choice: Choice,
) -> None:
    quantity = MAGNITUDES[table]
    if not choice.may_take(quantity):
        return
    counts = np.ma.asanyarray(columns["counts"]).data
    lowest = np.ma.asanyarray(columns["lowest_exponent"])
    without = np.ma.getmaskarray(lowest)
    for place, name, entry in _chosen(found, table, columns, choice, quantity):
        if not without[place]:
            entry.histograms[name] = Magnitudes(
                int(lowest.data[place]), tuple(int(count) for count in counts[place])
            )


def _chosen(
    found: dict[tuple[int, int], StepValues],
    table: str,
    columns: Mapping[str, Any],
    choice: Choice,
    quantity: str,
) -> Iterator[tuple[int, str, StepValues]]:
    """The place, name and step's values of each chosen row."""
    epochs, steps = np.ma.getdata(columns["epoch"]), np.ma.getdata(columns["step"])
    by = ROW_COLUMN[table]
    rows = np.ma.getdata(columns[by]) if by else [""] * len(steps)
    for place, row in enumerate(rows):
        name = full_name(quantity, row)
        if choice.takes(name):
            yield place, name, _at(found, epochs[place], steps[place])


def _add_epochs(
    found: dict[tuple[int, int], StepValues], columns: Mapping[str, Any], choice: Choice
) -> None:
    for place, (epoch, step) in enumerate(zip(columns["epoch"], columns["step"], strict=True)):
        entry = _at(found, epoch, step)
        entry.ends_epoch = True
        for column in columns:
            value = columns[column][place]
            name = f"{EPOCH_PREFIX}{column}"
            is_number = isinstance(value, Real | np.bool_)
            if column not in ("epoch", "step") and is_number and choice.takes(name):
                entry.scalars[name] = _as_float(value)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond the range
        return math.inf if value > 0 else -math.inf
