"""Reads one part of a table, and makes sure that it is what was written."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.manifest import Manifest
from gradflow.runs.parts import Part


class MissingPartError(RunError):
    """A part that should be there is not."""


def read_part(
    manifest: Manifest,
    part: Part,
    columns: Sequence[str] | None = None,
    filters: Any = None,
) -> pa.Table:
    """The rows of `part`, names as plain strings.

    Args:
        manifest: knows the checksum of the part, which is compared.
        part: which one to read.
        columns: the columns wanted; all by default. Those that the part has not are left out.
        filters: which rows are wanted, as `pyarrow.parquet.read_table` takes it.

    Raises `RunError`, naming the file, where it is missing or damaged.
    """
    try:
        content = part.path.read_bytes()
    except FileNotFoundError as error:
        raise MissingPartError(f"the part {part.path} is missing: {_ADVICE}") from error
    except OSError as error:
        raise RunError(f"the part {part.path} cannot be read: {error.strerror}") from error
    if manifest.contradicts(part.path, content):
        raise RunError(f"the part {part.path} is damaged (its checksum is another): {_ADVICE}")
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        present = file.schema_arrow.names
        wanted = None if columns is None else [name for name in columns if name in present]
        table = pq.read_table(
            pa.BufferReader(content), columns=wanted, filters=filters, partitioning=None
        )
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the part {part.path} is damaged ({reason}): {_ADVICE}") from error
    return table.cast(pa.schema([_plain(field) for field in table.schema]))


_ADVICE = (
    "`python -m gradflow.runs check FOLDER --repair` sets damaged files aside, "
    "and the rest of the run can be read"
)


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
