"""Reads one part of a table, and checks that it is what was written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradflow.errors import GradflowError, RunError
from gradflow.runs.format.layer_index import row_groups_with
from gradflow.runs.format.limits import require_inside, require_memory, require_regular_file
from gradflow.runs.format.manifest import Manifest
from gradflow.runs.format.parts import ROW_COLUMN, Part
from gradflow.runs.reading.part_contents import (
    DamagedError,
    checked_columns,
    conform_to_schema,
    read_in_batches,
    require_fits_memory,
    stored_names,
    text_columns,
)


class MissingPartError(RunError):
    """A part of a table is missing."""


def read_part(manifest: Manifest, part: Part) -> pa.Table:
    """The rows of `part` in order, with names as plain strings.

    Raises `RunError`, naming the file, if it is missing, outside the run's folder, too large, or if
    it does not match the manifest or the schema's types.
    """
    with _naming(part):
        _require_own(manifest.folder, part.path)
        require_memory(f"the part {part.path}", part.path.stat().st_size)
        content = part.path.read_bytes()
        if manifest.contradicts(part.path, content):
            raise DamagedError("its checksum differs")
        file = pq.ParquetFile(pa.BufferReader(content))
        columns = checked_columns(part, file.schema_arrow)
        require_fits_memory(part, file, columns)
        if texts := text_columns(file.schema_arrow):
            file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
        return conform_to_schema(part, read_in_batches(part, file, columns))


def read_layer(manifest: Manifest, part: Part, columns: Sequence[str], layer: str) -> pa.Table:
    """Some columns of the rows of one layer of `part`, in order.

    Reads only the row groups that may hold the layer, and verifies the checksums of their pages.
    Columns that the part lacks are left out.

    Raises `RunError`, naming the file, as `read_part` does.
    """
    with _naming(part):
        _require_own(manifest.folder, part.path)
        with pq.ParquetFile(part.path, page_checksum_verification=True) as file:
            present = checked_columns(part, file.schema_arrow)
            if "layer" not in present:
                raise DamagedError("it has no column layer")
            wanted = stored_names(part, present, (*columns, ROW_COLUMN))
            groups = row_groups_with(file, layer)
            require_fits_memory(part, file, [*wanted, "layer"], groups)
            table = read_in_batches(part, file, [*wanted, "layer"], groups)
        return conform_to_schema(part, table.filter(pc.equal(table["layer"], layer)).select(wanted))


def require_readable(folder: Path, part: Part, *, whole: bool) -> None:
    """Make sure that `part` of the run in `folder` can be read: its footer, or all if `whole`.

    Raises `RunError` or an error of Arrow's if it cannot.
    """
    _require_own(folder, part.path)
    with pq.ParquetFile(part.path, page_checksum_verification=True) as file:
        require_fits_memory(part, file, checked_columns(part, file.schema_arrow))
        for _ in file.iter_batches() if whole else ():
            pass


def _require_own(folder: Path, path: Path) -> None:
    require_inside(folder, path)
    require_regular_file(path)


@contextmanager
def _naming(part: Part) -> Iterator[None]:
    """Turns any error with `part` into a `RunError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingPartError(f"the part {part.path} is missing: {_ADVICE}") from error
    except GradflowError:
        raise
    except Exception as error:  # damage on purpose makes Arrow raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"the part {part.path} is damaged ({reason}): {_ADVICE}") from error


_ADVICE = (
    "`python -m gradflow.runs check FOLDER --repair` sets damaged files aside, "
    "and the rest of the run can be read"
)
