"""Merges many small parts of a table into one, so that a long run does not drown in files.

As soon as the last `MERGED_AT_ONCE` parts of a table were all merged equally often, they become one
that was merged once more: n appended parts leave at most `MERGED_AT_ONCE` x log(n) files, and each
row is rewritten log(n) times at most (a log-structured merge tree: O'Neil et al. 1996). Parts that
together exceed `LARGEST` rows are left as they are. Rows are copied in groups: memory stays flat.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradflow.runs.files import fault_point, write_whole
from gradflow.runs.manifest import note, read_manifest, tidy
from gradflow.runs.parts import Part, part_name, parts_of

MERGED_AT_ONCE = 32
LARGEST = 4_000_000
_ROWS_IN_A_GROUP = 1 << 17
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

    def added(self, table: str, part: Part, rows: int) -> None:
        """Take note of a new part of `table`, and merge what is due."""
        if table not in self._tables:
            known = parts_of(read_manifest(self._run_folder), table)
            self._tables[table] = [_counted(one) for one in known if one.path != part.path]
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
            parts[-MERGED_AT_ONCE:] = [self._merge(parts[-MERGED_AT_ONCE:])]

    def _merge(self, counted: list[_Counted]) -> _Counted:
        parts = [one.part for one in counted]
        first, last = parts[0].first, parts[-1].last
        generation = counted[0].generation + 1
        path = parts[0].path.with_name(part_name(first, last, merged=True))
        write_whole(path, lambda temporary: _copy_rows(parts, generation, temporary))
        old = [part.path for part in parts]
        note(self._run_folder, [path], old)  # from here on the new one counts, and they do not
        fault_point("merged")
        for one in old:
            one.unlink()
        tidy(self._run_folder)
        return _Counted(Part(first, last, path), generation, sum(one.rows for one in counted))


def _is_due(parts: list[_Counted]) -> bool:
    last = parts[-MERGED_AT_ONCE:]
    return (
        len(last) == MERGED_AT_ONCE
        and len({one.generation for one in last}) == 1
        and sum(one.rows for one in last) <= LARGEST
    )


def _counted(part: Part) -> _Counted:
    metadata = pq.read_metadata(part.path)
    generation = int((metadata.metadata or {}).get(_GENERATION, b"0"))
    return _Counted(part, generation, metadata.num_rows)


def _copy_rows(parts: list[Part], generation: int, path: Path) -> None:
    # Columns differ where an epoch had scalars that another had not.
    schema = pa.unify_schemas(
        [pq.read_schema(part.path).remove_metadata() for part in parts],
        promote_options="permissive",
    )
    schema = schema.with_metadata({_GENERATION: str(generation).encode()})
    waiting: list[pa.Table] = []
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in parts:
            file = pq.ParquetFile(part.path)
            for group in range(file.num_row_groups):
                table = _with_columns(file.read_row_group(group), schema)
                waiting.append(table)
                rows += table.num_rows
                if rows >= _ROWS_IN_A_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema`, those that it has not without values."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
