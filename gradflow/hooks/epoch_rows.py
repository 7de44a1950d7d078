"""Writes the rows of an epoch, also of one that ended within a step.

Files are named by the steps that their rows belong to. An epoch may have no whole step, e.g. if
gradients are accumulated over more batches than it has: its rows wait for the next one that has.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradflow.runs.writing.run import RunWriter

Rows = Mapping[str, Any]


class EpochRows:
    """Passes rows of tables on to a writer, or keeps them until there is a step to name them by."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[dict[str, list[Any]]]] = {}

    def write(
        self, writer: RunWriter, table: str, rows: Rows, first_step: int, last_step: int
    ) -> None:
        """Write `rows` and those of `table` that wait; if `last_step` precedes the first, wait."""
        if last_step < first_step:
            self._waiting.setdefault(table, []).append(_as_lists(rows))
            return
        waiting = self._waiting.pop(table, [])
        joined = _joined([*waiting, _as_lists(rows)]) if waiting else rows
        writer.append(table, joined, first_step, last_step)

    def write_waiting(self, writer: RunWriter, step: int) -> None:
        """Write what still waits under `step`, the one under way, at the end of the run."""
        for table, waiting in self._waiting.items():
            writer.append(table, _joined(waiting), step, step)
        self._waiting.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that wait, as lists of numbers and names."""
        return {table: list(waiting) for table, waiting in self._waiting.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._waiting = {table: list(waiting) for table, waiting in state.items()}


def _as_lists(rows: Rows) -> dict[str, list[Any]]:
    return {name: np.ma.asanyarray(column).tolist() for name, column in rows.items()}


def _joined(parts: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """One set of columns; a column that a part has not is missing there."""
    names = dict.fromkeys(name for part in parts for name in part)
    sizes = [len(next(iter(part.values()))) for part in parts]
    return {
        name: [
            value
            for part, size in zip(parts, sizes, strict=True)
            for value in part.get(name, [None] * size)
        ]
        for name in names
    }
