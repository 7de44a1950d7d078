"""Writes a recorded run to a sink, as the tracer would have done while it was recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gradflow.errors import ConfigurationError, GradflowError
from gradflow.runs.reading.run import Run
from gradflow.sinks.measurements import EpochEnds, StepValues, Tables, measurements
from gradflow.sinks.names import MAGNITUDES, ROW_COLUMN, SCALARS, Choice
from gradflow.sinks.sink import Sink, SinkRun

# So many steps are turned into numbers by name at once.
_STEPS_AT_ONCE = 64


@dataclass(frozen=True)
class Replayed:
    """What was written: the number of scalars and histograms, the steps, and the files."""

    scalars: int
    histograms: int
    steps: int
    files: tuple[Path, ...]


def replay(run: Run, sink: Sink, files: Sequence[Path] = ()) -> Replayed:
    """Write the chosen quantities of `run` to `sink`, and `files` among its artifacts.

    Raises `RunError` if the run is damaged, and `ConfigurationError`, naming the sink, if that
    cannot be written to.
    """
    tables = _tables(run, sink.choice)
    try:
        return _replay(run, sink, tables, files)
    except GradflowError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        where = f" ({sink.place})" if sink.place else ""
        raise ConfigurationError(f"{sink.kind}{where} cannot be written: {reason}") from error


def takes_files(sink: Sink) -> bool:
    """Whether the sink has artifacts."""
    return type(sink).add_files is not Sink.add_files


def _replay(
    run: Run, sink: Sink, tables: dict[str, dict[str, Any]], files: Sequence[Path]
) -> Replayed:
    scalars, histograms, steps = 0, 0, 0
    sink.attach()
    sink.open(SinkRun(run.folder, run.description))
    try:
        for values in _values(tables, sink):
            if sink.take(values):
                scalars += len(values.scalars)
                histograms += len(values.histograms) if sink.takes_histograms else 0
                steps += 1
        kept = tuple(files) if takes_files(sink) else ()
        if kept:
            sink.add_files(kept)
    finally:
        sink.close()
    return Replayed(scalars, histograms, steps, kept)


def _values(tables: dict[str, dict[str, Any]], sink: Sink) -> Iterator[StepValues]:
    ends = EpochEnds()
    for few in _by_steps(tables):
        for one in measurements(few, sink.choice):
            yield from ends.add(one) if sink.every == "epoch" else [one]
    yield from ends.rest()


def _tables(run: Run, choice: Choice) -> dict[str, dict[str, Any]]:
    """The columns of `run` that are needed, in order of step."""
    tables = {}
    for name in (*SCALARS, "epochs"):
        table = run.arrow(name)
        names = ["epoch", "step", *(one for one in _columns(name, table, choice))]
        if len(names) > 2 and table.num_rows:
            columns = {one: _column(table[one]) for one in names}
            order = np.argsort(columns["step"].data, kind="stable")
            tables[name] = {one: column[order] for one, column in columns.items()}
    return tables


def _columns(name: str, table: pa.Table, choice: Choice) -> list[str]:
    """The columns, but epoch and step, that `measurements` needs of the table."""
    if name == "epochs":
        return [one for one in table.column_names if one not in ("epoch", "step")]
    wanted = [column for column, one in SCALARS[name].items() if choice.may_take(one)]
    if name in MAGNITUDES and choice.may_take(MAGNITUDES[name]):
        wanted += ["lowest_exponent", "counts"]
    wanted = [column for column in wanted if column in table.column_names]
    row = ROW_COLUMN[name]
    return [row, *wanted] if wanted and row else wanted


def _column(column: pa.ChunkedArray) -> Any:
    """The column as a masked array; nan is a value, null is missing."""
    mask = column.is_null().to_numpy(zero_copy_only=False)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        filled = column.fill_null(0) if column.null_count else column
        return np.ma.array(filled.to_numpy(), mask=mask)
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    if pa.types.is_boolean(kind):
        return np.ma.array(np.where(mask, False, values).astype(bool), mask=mask)
    return np.ma.array(values, mask=mask)


def _by_steps(tables: dict[str, dict[str, Any]]) -> Iterator[Tables]:
    """The rows of `tables`, some steps at a time, so that few numbers are in memory by name."""
    of_table = {name: np.ma.getdata(columns["step"]) for name, columns in tables.items()}
    if not of_table:
        return
    steps = np.unique(np.concatenate(list(of_table.values())))
    for start in range(0, len(steps), _STEPS_AT_ONCE):
        few = steps[start : start + _STEPS_AT_ONCE]
        part = {}
        for name, columns in tables.items():
            first = int(np.searchsorted(of_table[name], few[0], side="left"))
            last = int(np.searchsorted(of_table[name], few[-1], side="right"))
            if last > first:
                part[name] = {one: column[first:last] for one, column in columns.items()}
        yield part
