"""Buffers what was recorded: first on the device, then in memory, until it is written."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradflow.hooks.layers import LayerTable
from gradflow.hooks.nonfinite import first_nonfinite
from gradflow.hooks.processes.joining import Processes
from gradflow.hooks.records import Columns, StepRecord, concatenate, to_columns
from gradflow.hooks.refusals import scale_of_histograms_message
from gradflow.hooks.selection.groups import Groups
from gradflow.hooks.updates.scaling import step_columns, unscale
from gradflow.hooks.updates.totals import add_clipping_factors, step_totals
from gradflow.runs.writing.run import RunWriter

# How many recorded steps, and rows of them, are kept on the device before they are transferred to
# memory, and how many in memory before they are written. The end of an epoch does both. The limits
# on rows matter to models of thousands of layers: each row that waits is several objects, which
# Python's garbage collector looks through again and again.
_STEPS_PER_TRANSFER, _ROWS_PER_TRANSFER = 16, 10_000
_STEPS_PER_PART, _ROWS_PER_PART = 256, 250_000


class RecordStore:
    """Takes the records of finished steps, and writes their rows as parts of the tables.

    `report` says once that something is not recorded; it takes a kind and a message.

    Fields:
        nonfinite: the first nan or infinite value found, or None.
        deliver: also gets the rows, by table, as soon as they are in memory; or None.
    """

    def __init__(
        self,
        writer: RunWriter,
        processes: Processes,
        layers: LayerTable,
        report: Callable[[str, str], None],
        groups: Groups | None = None,
    ) -> None:
        self.nonfinite: dict[str, Any] | None = None
        self.deliver: Callable[[dict[str, Columns]], None] | None = None
        self._writer = writer
        self._processes = processes
        self._layers = layers
        self._report = report
        self._groups = groups
        self._records: list[StepRecord] = []
        self._columns: dict[str, list[Columns]] = {}
        self._steps = 0
        self._rows_on_device = 0
        self._rows = 0
        self._part_start = 0
        self._modes: dict[str, str] = {}

    def start_at(self, step: int) -> None:
        """Set the first step to be written: the steps before it are in the run already."""
        self._part_start = step

    def add(self, record: StepRecord) -> None:
        """Keep the record of a step that has ended."""
        self._records.append(record)
        self._rows_on_device += record.rows

    def transfer_and_flush_if_due(self, next_step: int, *, at_once: bool) -> None:
        """Transfer and write the steps before `next_step`, if enough are kept.

        With `at_once`, transfer them in any case."""
        # Processes transfer together, at the same step, so theirs may not depend on their rows.
        alone = self._processes.count == 1
        many = alone and self._rows_on_device >= _ROWS_PER_TRANSFER
        if many or len(self._records) >= (1 if at_once else _STEPS_PER_TRANSFER):
            self.transfer()
        if self._steps >= _STEPS_PER_PART or (alone and self._rows >= _ROWS_PER_PART):
            self.flush(next_step)

    def drop_pending(self) -> None:
        """Drop the records that are still on the device."""
        self._records.clear()
        self._rows_on_device = 0

    def flush(self, next_step: int) -> None:
        """Write everything recorded before `next_step`."""
        self.transfer()
        if self._layers.changed:
            self._writer.write_layers(self._layers.columns())
            self._layers.changed = False
        tables: dict[str, Mapping[str, Any]] = {}
        for name in list(self._columns):
            tables[name] = concatenate(self._columns.pop(name))
        try:
            self._writer.append_all(tables, self._part_start, next_step - 1)
        finally:
            # If a table fails, a retry must not write those before it again.
            self._columns = {name: [dict(rows)] for name, rows in tables.items()}
        self._steps = self._rows = 0
        self._part_start = next_step

    def transfer(self) -> None:
        """Transfer the numbers of the kept steps from the device to memory."""
        if not self._records:
            return
        kept, self._records = self._records, []
        self._steps += len(kept)
        self._rows += self._rows_on_device
        self._rows_on_device = 0
        for record in kept:
            record.take_up()
        records = self._processes.join(kept)
        if not records:
            return
        tables = {**to_columns(records), "steps": step_columns(records)}
        if not unscale(tables, records):
            self._report("scale of histograms", scale_of_histograms_message())
        if "parameters" in tables:
            add_clipping_factors(tables["parameters"])
        # Totals are over all parameters, and missing if a step measures only some.
        in_turns = any(record.in_turns for record in records)
        whole = None if in_turns else tables.get("parameters")
        tables["steps"] |= step_totals(tables["steps"]["step"], whole)
        if modes := self._mode_columns(records):
            tables["modes"] = modes
        if self._groups is not None:
            tables["groups"] = self._groups.columns(tables, in_turns=in_turns)
        for name, columns in tables.items():
            self._columns.setdefault(name, []).append(columns)
        if self.deliver is not None:
            self.deliver(tables)
        if self.nonfinite is None:
            steps = tables["steps"]
            self.nonfinite = first_nonfinite(tables, set(steps["step"][steps["skipped"]].tolist()))
            if self.nonfinite is not None:
                self._writer.describe(first_nonfinite=self.nonfinite)

    def _mode_columns(self, records: Sequence[StepRecord]) -> Columns:
        """Return the columns of the table `modes`; none if no layer has changed its mode."""
        rows = []
        for record in records:
            if record.modes != self._modes:  # most layers never change their mode
                rows += [
                    (record, layer, mode)
                    for layer, mode in record.modes.items()
                    if self._layers.changes_mode(layer, mode)
                ]
                self._modes = record.modes
        if not rows:
            return {}
        return {
            "epoch": np.ma.array([record.epoch for record, _, _ in rows]),
            "step": np.ma.array([record.step for record, _, _ in rows]),
            "layer": np.ma.array([layer for _, layer, _ in rows], dtype=object),
            "mode": np.ma.array([mode for _, _, mode in rows], dtype=object),
        }
