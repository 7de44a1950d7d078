"""Reads one part of a table, and makes sure that it is what was written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.manifest import Manifest
from gradflow.runs.parts import ROW, Part


class MissingPartError(RunError):
    """A part that should be there is not."""


def read_part(manifest: Manifest, part: Part) -> pa.Table:
    """The rows of `part` in order, names as plain strings.

    Raises `RunError`, naming the file, where it is missing or not what the manifest says.
    """
    with _naming(part):
        content = part.path.read_bytes()
        if manifest.contradicts(part.path, content):
            raise _DamagedError("its checksum is another")
        table = pq.read_table(pa.BufferReader(content), partitioning=None)
    if ROW in table.column_names:
        table = table.sort_by(ROW).drop_columns([ROW])
    return _plain(table)


def read_rows(part: Part, columns: Sequence[str], filters: Any) -> pa.Table:
    """Some columns of some rows of `part`, in order; only as much of the file is read as needed.

    Args:
        part: which one to read; what is read of it is compared with the checksums of its pages.
        columns: the columns wanted; those that the part has not are left out.
        filters: which rows are wanted, as `pyarrow.parquet.read_table` takes it.

    Raises `RunError`, naming the file, where it is missing or damaged.
    """
    with _naming(part):
        present = pq.read_schema(part.path).names
        table = pq.read_table(
            part.path,
            columns=[name for name in (*columns, ROW) if name in present],
            filters=filters,
            partitioning=None,
            page_checksum_verification=True,
        )
    if ROW in table.column_names:
        table = table.sort_by(ROW).drop_columns([ROW])
    return _plain(table)


class _DamagedError(Exception):
    """A part is not what was written; says why."""


@contextmanager
def _naming(part: Part) -> Iterator[None]:
    """Turns what goes wrong with `part` into a `RunError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingPartError(f"the part {part.path} is missing: {_ADVICE}") from error
    except (pa.ArrowException, OSError, _DamagedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"the part {part.path} is damaged ({reason}): {_ADVICE}") from error


_ADVICE = (
    "`python -m gradflow.runs check FOLDER --repair` sets damaged files aside, "
    "and the rest of the run can be read"
)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with plain strings in place of dictionaries, and without metadata."""
    return pa.schema(
        field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in schema
    )


def _plain(table: pa.Table) -> pa.Table:
    return table.cast(plain_schema(table.schema))
