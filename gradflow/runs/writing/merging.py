"""Merges many small parts of a table into one, so that a long run has few files.

The rule is that of a log-structured merge tree (O'Neil et al. 1996). As soon as the last
`PARTS_PER_MERGE` parts of a table have all been merged equally often, they are merged into one. So
n appended parts leave at most `PARTS_PER_MERGE` x log(n) files, and each row is rewritten log(n)
times at most. Parts that together exceed `MAX_MERGED_ROWS` rows are not merged. Rows are copied in
batches, so memory stays flat. If a merge fails, the table is not merged further: its parts can
still be read.

In a merged part the rows of each batch are sorted by layer, so that one layer can be read without
the others. The column `row` holds each row's original position.
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
from gradflow.runs.format.files import fault_point, remove, write_atomically
from gradflow.runs.format.layer_index import LayerIndex
from gradflow.runs.format.manifest import (
    entry_of,
    name_in,
    read_manifest,
    record_change,
    shorten_manifest,
)
from gradflow.runs.format.parts import (
    ROW_COLUMN,
    Part,
    leftover_files,
    parquet_options,
    part_name,
    parts_of,
    without_dictionaries,
)
from gradflow.runs.reading.part_contents import (
    DamagedError,
    checked_columns,
    require_fits_memory,
    with_current_names,
)
from gradflow.runs.writing.arrow_arrays import to_array

PARTS_PER_MERGE = 32
MAX_MERGED_ROWS = 4_000_000
_ROWS_PER_BATCH = 1 << 19
_ROWS_PER_GROUP = 1 << 14
_SORTED_BY = ("layer", "parameter")
_GENERATION = b"gradflow.generation"


@dataclass(frozen=True)
class _PartToMerge:
    """A part, its number of rows, and how often they have been merged (`generation`)."""

    part: Part
    generation: int
    rows: int


class PartMerger:
    """Tracks the parts of one run's tables, and merges those that are due."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._tables: dict[str, list[_PartToMerge] | None] = {}
        self._just_merged: set[Path] = set()

    def has_merged(self, path: Path) -> bool:
        """Whether an interrupted merge already holds the rows of the part at `path`."""
        return path in self._just_merged

    def add(self, table: str, part: Part, rows: int) -> None:
        """Add a new part of `table`, and merge the parts that are due, if possible."""
        try:
            self._add(table, part, rows)
        except (RunError, OSError, pa.ArrowException):
            # E.g. a damaged part, a full disk, or a file open in another program. The parts still
            # count as they are; reading them or writing the next one reports the problem.
            self._tables[table] = None
        self._just_merged.clear()

    def _add(self, table: str, part: Part, rows: int) -> None:
        if table not in self._tables:
            known = parts_of(read_manifest(self._run_folder), table)
            self._tables[table] = _parts_to_merge([one for one in known if one.path != part.path])
        parts = self._tables[table]
        if parts is None:
            return
        if parts and part.path == parts[-1].part.path:
            parts.pop()  # it was rewritten
        if parts and part.first <= parts[-1].part.first:
            # A probe added rows of an earlier epoch later. Merging would lose their order.
            self._tables[table] = None
            return
        parts.append(_PartToMerge(part, 0, rows))
        while _is_due(parts):
            due = parts[-PARTS_PER_MERGE:]
            if not self._are_undamaged(due):
                # Reading them will name the damaged file. Later parts are merged again.
                parts.clear()
                return
            parts[-PARTS_PER_MERGE:] = [self._merge(due)]

    def _are_undamaged(self, due: list[_PartToMerge]) -> bool:
        """Whether these parts are undamaged; damage must not get a new, valid checksum."""
        listed = read_manifest(self._run_folder).files
        try:
            return all(
                entry_of(one.part.path) in listed[name_in(self._run_folder, one.part.path)]
                for one in due
            )
        except (OSError, KeyError):
            return False

    def _merge(self, due: list[_PartToMerge]) -> _PartToMerge:
        parts = [one.part for one in due]
        first, last = parts[0].first, parts[-1].last
        generation = due[0].generation + 1
        path = parts[0].path.with_name(part_name(first, last, merged=True))
        write_atomically(path, lambda temporary: _copy_rows(parts, generation, temporary))
        old = [part.path for part in parts]
        self._just_merged |= set(old)
        record_change(self._run_folder, [path], old)  # from here on the merged part counts
        fault_point("merged")
        for one in old:
            one.unlink()
        shorten_manifest(self._run_folder)
        return _PartToMerge(Part(first, last, path), generation, sum(one.rows for one in due))


def remove_leftovers(run_folder: Path) -> None:
    """Remove the leftovers of failed merges in a run that no other process writes.

    Raises `RunError` if that fails.
    """
    paths = leftover_files(read_manifest(run_folder))
    if paths:
        shorten_manifest(run_folder)  # flushed first: it lists the files that replace these
    for path in paths:
        remove(path)


def _is_due(parts: list[_PartToMerge]) -> bool:
    last = parts[-PARTS_PER_MERGE:]
    return (
        len(last) == PARTS_PER_MERGE
        and len({one.generation for one in last}) == 1
        and sum(one.rows for one in last) <= MAX_MERGED_ROWS
    )


def _parts_to_merge(parts: list[Part]) -> list[_PartToMerge]:
    """`parts` with their metadata; a damaged part and those before it are left out."""
    found: list[_PartToMerge] = []
    for part in parts:
        try:
            with pq.ParquetFile(part.path) as file:
                require_fits_memory(part, file, checked_columns(part, file.schema_arrow))
                metadata = file.metadata
            generation = int((metadata.metadata or {}).get(_GENERATION, b"0"))
        except (DamagedError, RunError, pa.ArrowException, OSError, ValueError):
            found.clear()
            continue
        found.append(_PartToMerge(part, generation, metadata.num_rows))
    return found


def _copy_rows(parts: list[Part], generation: int, path: Path) -> None:
    with ExitStack() as stack:
        files = [(part, stack.enter_context(pq.ParquetFile(part.path))) for part in parts]
        _copy_groups(files, generation, path)


def _copy_groups(files: list[tuple[Part, pq.ParquetFile]], generation: int, path: Path) -> None:
    # Columns differ if epochs have different scalars.
    schemas = [
        without_dictionaries(with_current_names(part, file.schema_arrow.empty_table()).schema)
        for part, file in files
    ]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    if ROW_COLUMN not in schema.names:
        schema = schema.append(pa.field(ROW_COLUMN, pa.int64()))
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
            if rows >= _ROWS_PER_BATCH:
                index.write(writer, _by_layer(waiting), _ROWS_PER_GROUP)
                waiting, rows = [], 0
        if waiting:
            index.write(writer, _by_layer(waiting), _ROWS_PER_GROUP)
        index.save(writer)


def _numbered_groups(files: list[tuple[Part, pq.ParquetFile]]) -> Iterator[pa.Table]:
    """The row groups of `files` in turn, each row with its position among all rows."""
    before = 0
    for part, file in files:
        seen = 0
        for group in range(file.num_row_groups):
            # No threads: a group is small, and on a busy processor waiting for other threads takes
            # many times as long as reading it.
            table = with_current_names(part, file.read_row_group(group, use_threads=False))
            if ROW_COLUMN in table.column_names:
                place = table.column_names.index(ROW_COLUMN)
                table = table.set_column(place, ROW_COLUMN, pc.add(table[ROW_COLUMN], before))
            else:
                numbers = np.arange(before + seen, before + seen + len(table))
                table = table.append_column(ROW_COLUMN, to_array(numbers))
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
    """`table` with the columns of `schema`; columns that it lacks are null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
