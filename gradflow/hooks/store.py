"""Buffers what was recorded: first on the device, then in memory, until it is written."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from gradflow.hooks.layers import LayerTable
from gradflow.hooks.processes.joining import Processes
from gradflow.hooks.recording.nonfinite import first_nonfinite
from gradflow.hooks.recording.records import Columns, StepRecord, concatenate, to_columns
from gradflow.hooks.recording.spikes import SpikeRing
from gradflow.hooks.refusals import scale_of_histograms_message
from gradflow.hooks.selection.groups import Groups
from gradflow.hooks.updates.scaling import step_columns, unscale
from gradflow.hooks.updates.totals import add_clipping_factors, step_totals
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.run import RunWriter

# How many recorded steps, and rows of them, are kept on the device before they are transferred to
# memory, and how many in memory before they are written. The end of an epoch does both. The limits
# on rows matter to models of thousands of layers: each row that waits is several objects, which
# Python's garbage collector looks through again and again.
_STEPS_PER_TRANSFER, _ROWS_PER_TRANSFER = 16, 10_000
_STEPS_PER_PART, _ROWS_PER_PART = 256, 250_000


class AddsColumns(Protocol):
    """What adds rows of its own to the tables of a transfer: the instruments."""

    def add_columns(self, tables: dict[str, Columns], records: Sequence[StepRecord]) -> None:
        """Add the rows of `records` to `tables`, in place."""


class LooksAtRows(Protocol):
    """What looks for conditions in the rows of a transfer."""

    def look(self, tables: Mapping[str, Columns]) -> Sequence[Any]:
        """Return the alerts, if conditions begin or end in these rows."""


class RecordStore:
    """Takes the records of finished steps, and writes their rows as parts of the tables.

    `report` says once that something is not recorded; it takes a kind and a message.

    Fields:
        nonfinite: the first nan or infinite value found, or None.
        deliver: also gets the rows, by table, as soon as they are in memory, and alerts under the
            name `alerts`; or None.
        alerts: looks for conditions in the rows before; or None.
        ring: holds rows back until it is known whether a spike follows; or None.
    """

    def __init__(
        self,
        writer: RunWriter,
        processes: Processes,
        layers: LayerTable,
        report: Callable[[str, str], None],
        groups: Groups | None = None,
        instruments: AddsColumns | None = None,
    ) -> None:
        self.nonfinite: dict[str, Any] | None = None
        self.deliver: Callable[[dict[str, Any]], None] | None = None
        self.alerts: LooksAtRows | None = None
        self.ring: SpikeRing | None = None
        self._writer = writer
        self._processes = processes
        self._layers = layers
        self._report = report
        self._groups = groups
        self._instruments = instruments
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
            self.flush(next_step, holds_back=True)

    def drop_pending(self) -> None:
        """Drop the records that are still on the device."""
        self._records.clear()
        self._rows_on_device = 0

    def flush(self, next_step: int, *, holds_back: bool = False) -> None:
        """Write everything recorded before `next_step`.

        With `holds_back`, leave out the last steps, if it is not known yet which are written.
        """
        self.transfer()
        if self.ring is not None:
            if not holds_back:
                self._keep(self.ring.rest(), [])
            elif self.ring.start is not None:
                next_step = max(self.ring.start, self._part_start)
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
        self._rows_on_device = 0
        for record in kept:
            record.take_up()
        records = self._processes.join(kept)
        if not records:
            return
        tables = {**to_columns(records), "steps": step_columns(records)}
        if self._instruments is not None:
            self._instruments.add_columns(tables, records)
        if not unscale(tables, records):
            self._report("scale of histograms", scale_of_histograms_message())
        if "parameters" in tables:
            add_clipping_factors(tables["parameters"])
        # Totals are over all parameters, and missing if a step measures only some.
        in_turns = any(record.in_turns for record in records)
        whole = None if in_turns else tables.get("parameters")
        tables["steps"] |= step_totals(tables["steps"]["step"], whole)
        tables["steps"] = _with_missing_columns(tables["steps"], len(records))
        if modes := self._mode_columns(records):
            tables["modes"] = modes
        if self._groups is not None:
            updates_in_turns = in_turns or any(record.updates_in_turns for record in records)
            tables["groups"] = self._groups.columns(
                tables, in_turns=in_turns, updates_in_turns=updates_in_turns
            )
        wanted = [record.wanted for record in records]
        kept_rows = tables if self.ring is None else self.ring.take(tables, wanted)
        try:
            alerts = [] if self.alerts is None else self.alerts.look(tables)
        except BaseException:
            self._keep(kept_rows, [])  # a warning that the user has made an error loses no rows
            raise
        self._keep(kept_rows, alerts)
        if self.nonfinite is None:
            steps = tables["steps"]
            self.nonfinite = first_nonfinite(tables, set(steps["step"][steps["skipped"]].tolist()))
            if self.nonfinite is not None:
                self._writer.describe(first_nonfinite=self.nonfinite)

    def _keep(self, tables: Mapping[str, Columns], alerts: Sequence[Any]) -> None:
        """Keep rows until they are written, and deliver them with the alerts."""
        for name, columns in tables.items():
            self._columns.setdefault(name, []).append(columns)
            self._rows += len(columns["step"])
        self._steps += len(tables["steps"]["step"]) if "steps" in tables else 0
        if self.deliver is not None and (tables or alerts):
            self.deliver({**tables, "alerts": alerts} if alerts else dict(tables))

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


def _with_missing_columns(steps: Columns, rows: int) -> Columns:
    """The columns of the table `steps`, without values where no instrument has filled one."""
    missing = {
        one.name: np.ma.masked_all(rows, dtype=object if one.dtype == "str" else one.dtype)
        for one in TABLES["steps"].columns
        if one.name not in steps
    }
    return {**steps, **missing}
