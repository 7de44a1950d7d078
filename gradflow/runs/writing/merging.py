"""Merges many small parts of a table into one, so that a long run does not drown in files.

As soon as the last `MERGED_AT_ONCE` parts of a table were all merged equally often, they become one
that was merged once more: n appended parts leave at most `MERGED_AT_ONCE` x log(n) files, and each
row is rewritten log(n) times at most (a log-structured merge tree: O'Neil et al. 1996). Parts that
together exceed `LARGEST` rows are left as they are. Rows are copied in batches: memory stays flat.
A merge that fails is left out, and those of its table that would follow: what is there is enough.

In a merged part the rows of each batch are sorted by layer, so that one layer's can be read without
the others; the column `row` holds the place that each had.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.format.files import fault_point, remove, write_whole
from gradflow.runs.format.layer_index import LayerIndex
from gradflow.runs.format.manifest import entry_of, name_in, note, read_manifest, tidy
from gradflow.runs.format.parts import (
    ROW,
    Part,
    left_over,
    parquet_options,
    part_name,
    parts_of,
    plain_schema,
)
from gradflow.runs.reading.part_contents import (
    DamagedError,
    columns_of,
    require_room,
    with_present_names,
)

MERGED_AT_ONCE = 32
LARGEST = 4_000_000
_ROWS_IN_A_BATCH = 1 << 19
_ROWS_IN_A_GROUP = 1 << 14
_SORTED_BY = ("layer", "parameter")
_GENERATION = b"gradflow.generation"


@dataclass(frozen=True)
class _Counted:
    """A part, how often its rows were merged, and how many there are."""

    part: Part
    generation: int
    rows: int


class Compactor:
    """Knows the parts of the tables of one run, and merges those that are due."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._tables: dict[str, list[_Counted] | None] = {}
        self._merged_away: set[Path] = set()

    def has_merged(self, path: Path) -> bool:
        """Whether the rows of the part at `path` were in a merge that was interrupted."""
        return path in self._merged_away

    def added(self, table: str, part: Part, rows: int) -> None:
        """Take note of a new part of `table`, and merge what is due, if that can be done."""
        try:
            self._add(table, part, rows)
        except (RunError, OSError, pa.ArrowException):
            # A damaged part, a full disk, a file that another program holds open: whoever reads,
            # or writes the next part, is told. Until then nothing is wrong with what is there.
            self._tables[table] = None
        self._merged_away.clear()

    def _add(self, table: str, part: Part, rows: int) -> None:
        if table not in self._tables:
            known = parts_of(read_manifest(self._run_folder), table)
            self._tables[table] = _counted([one for one in known if one.path != part.path])
        parts = self._tables[table]
        if parts is None:
            return
        if parts and part.path == parts[-1].part.path:
            parts.pop()  # it was written anew
        if parts and part.first <= parts[-1].part.first:
            # Rows of an earlier epoch, added by a probe afterwards: a merge would lose the order.
            self._tables[table] = None
            return
        parts.append(_Counted(part, 0, rows))
        while _is_due(parts):
            due = parts[-MERGED_AT_ONCE:]
            if not self._are_whole(due):
                # Left as they are, to be named by who reads them; those that follow are merged.
                parts.clear()
                return
            parts[-MERGED_AT_ONCE:] = [self._merge(due)]

    def _are_whole(self, counted: list[_Counted]) -> bool:
        """Whether these parts are what was written: damage must not be copied under a new sum."""
        listed = read_manifest(self._run_folder).files
        try:
            return all(
                entry_of(one.part.path) in listed[name_in(self._run_folder, one.part.path)]
                for one in counted
            )
        except (OSError, KeyError):
            return False

    def _merge(self, counted: list[_Counted]) -> _Counted:
        parts = [one.part for one in counted]
        first, last = parts[0].first, parts[-1].last
        generation = counted[0].generation + 1
        path = parts[0].path.with_name(part_name(first, last, merged=True))
        write_whole(path, lambda temporary: _copy_rows(parts, generation, temporary))
        old = [part.path for part in parts]
        self._merged_away |= set(old)
        note(self._run_folder, [path], old)  # from here on the new one counts, and they do not
        fault_point("merged")
        for one in old:
            one.unlink()
        tidy(self._run_folder)
        return _Counted(Part(first, last, path), generation, sum(one.rows for one in counted))


def clear_away(run_folder: Path) -> None:
    """Remove what merges that failed left over in a run that nobody else writes.

    Raises `RunError` where that cannot be done.
    """
    paths = left_over(read_manifest(run_folder))
    if paths:
        tidy(run_folder)  # what counts in their place is known on the disk before they go
    for path in paths:
        remove(path)


def _is_due(parts: list[_Counted]) -> bool:
    last = parts[-MERGED_AT_ONCE:]
    return (
        len(last) == MERGED_AT_ONCE
        and len({one.generation for one in last}) == 1
        and sum(one.rows for one in last) <= LARGEST
    )


def _counted(parts: list[Part]) -> list[_Counted]:
    """`parts` with what they say of themselves; those up to a damaged one are left out."""
    counted: list[_Counted] = []
    for part in parts:
        try:
            with pq.ParquetFile(part.path) as file:
                require_room(part, file, columns_of(part, file.schema_arrow))
                metadata = file.metadata
            generation = int((metadata.metadata or {}).get(_GENERATION, b"0"))
        except (DamagedError, RunError, pa.ArrowException, OSError, ValueError):
            counted.clear()
            continue
        counted.append(_Counted(part, generation, metadata.num_rows))
    return counted


def _copy_rows(parts: list[Part], generation: int, path: Path) -> None:
    with ExitStack() as stack:
        files = [(part, stack.enter_context(pq.ParquetFile(part.path))) for part in parts]
        _copy_groups(files, generation, path)


def _copy_groups(files: list[tuple[Part, pq.ParquetFile]], generation: int, path: Path) -> None:
    # Columns differ where an epoch had scalars that another had not.
    schemas = [
        plain_schema(with_present_names(part, file.schema_arrow.empty_table()).schema)
        for part, file in files
    ]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    if ROW not in schema.names:
        schema = schema.append(pa.field(ROW, pa.int64()))
    schema = schema.with_metadata({_GENERATION: str(generation).encode()})
    waiting: list[pa.Table] = []
    rows = 0
    index = LayerIndex()
    with (
        path.open("wb") as file,  # opened here, as in `write_rows`
        pq.ParquetWriter(file, schema, **parquet_options(schema)) as writer,
    ):
        for table in _numbered_groups(files):
            waiting.append(_with_columns(table, schema))
            rows += table.num_rows
            if rows >= _ROWS_IN_A_BATCH:
                index.write(writer, _by_layer(waiting), _ROWS_IN_A_GROUP)
                waiting, rows = [], 0
        if waiting:
            index.write(writer, _by_layer(waiting), _ROWS_IN_A_GROUP)
        index.note(writer)


def _numbered_groups(files: list[tuple[Part, pq.ParquetFile]]) -> Iterator[pa.Table]:
    """The row groups of `files` one after the other, each row with its place in all of them."""
    before = 0
    for part, file in files:
        seen = 0
        for group in range(file.num_row_groups):
            # A group is small: where the processor is busy, handing its columns to other threads
            # and waiting for them takes many times as long as reading it.
            table = with_present_names(part, file.read_row_group(group, use_threads=False))
            if ROW in table.column_names:
                place = table.column_names.index(ROW)
                table = table.set_column(place, ROW, pc.add(table[ROW], before))
            else:
                numbers = np.arange(before + seen, before + seen + len(table))
                table = table.append_column(ROW, pa.array(numbers))
            seen += len(table)
            yield table
        before += seen


def _by_layer(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    for name in _SORTED_BY:
        if name in table.column_names:
            return table.take(pc.sort_indices(table[name]))
    return table


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema`, those that it has not without values."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
