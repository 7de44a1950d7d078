"""Reads one part of a table, and makes sure that it is what was written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.manifest import Manifest
from gradflow.runs.parts import ROW, Part, plain_schema


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
    return table.cast(plain_schema(table.schema))


def read_layer(part: Part, columns: Sequence[str], layer: str) -> pa.Table:
    """Some columns of the rows of one layer of `part`, in order.

    Only those row groups are read whose statistics admit the layer; what is read is compared with
    the checksums of its pages. Columns that the part has not are left out.

    Raises `RunError`, naming the file, where it is missing or damaged.
    """
    with _naming(part), pq.ParquetFile(part.path, page_checksum_verification=True) as file:
        present = file.schema_arrow.names
        if "layer" not in present:
            raise _DamagedError("it has no column layer")
        place = present.index("layer")
        groups = [
            group
            for group in range(file.num_row_groups)
            if _may_hold(file.metadata.row_group(group).column(place).statistics, layer)
        ]
        wanted = [name for name in (*columns, ROW) if name in present]
        table = file.read_row_groups(groups, [*wanted, "layer"], use_threads=False)
        table = table.filter(pc.equal(table["layer"], layer)).select(wanted)
    if ROW in table.column_names:
        table = table.sort_by(ROW).drop_columns([ROW])
    return table.cast(plain_schema(table.schema))


def _may_hold(statistics: Any, value: str) -> bool:
    """Whether a column of which these are the statistics may hold `value`."""
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= value <= statistics.max)


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
