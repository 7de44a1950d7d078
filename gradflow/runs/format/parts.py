"""The parts of a run's tables: which files count, and in which order.

part-<first>-<last>.parquet    the rows of a range of steps, as they were appended
merged-<first>-<last>.parquet  many parts merged into one. It counts once the manifest lists it. The
                               same line of the manifest removes the parts that it replaces.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.format.manifest import MANIFEST_FILE, Manifest
from gradflow.runs.format.schema import TABLES

# A column of merged parts only: the original position of each row.
ROW_COLUMN = "row"

# The types in which columns are read; names of layers and parameters are written as dictionaries.
ARROW_TYPES = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "list": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float32()),
    "bytes": pa.binary(),
    "str": pa.string(),
}

_STEPS = 10**10
_PATTERN = re.compile(r"(part|merged)-(\d{10})-(\d{10})\.parquet")


@dataclass(frozen=True, order=True)
class Part:
    """A file with the rows of a table for the steps `first` to `last`."""

    first: int
    last: int
    path: Path

    @property
    def is_merged(self) -> bool:
        """Whether it was merged from other parts."""
        return self.path.name.startswith("merged-")


def part_name(first_step: int, last_step: int, *, merged: bool = False) -> str:
    """The file name of the part that holds the rows of steps first_step to last_step.

    Raises `RunError` if a step is out of range: the file would never be found again.
    """
    if not (0 <= first_step < _STEPS and 0 <= last_step < _STEPS):
        raise RunError(
            f"no part can hold rows of steps {first_step} to {last_step}: "
            f"steps count from 0 and must be less than {_STEPS:,}"
        )
    return f"{'merged' if merged else 'part'}-{first_step:010d}-{last_step:010d}.parquet"


def without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """`schema` with plain strings in place of dictionaries of strings."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Arrow's options for writing a file with the rows of a table that has `schema`.

    Names are dictionary-encoded. Measured values are not: they hardly ever repeat, so a dictionary
    would take more space and twice the time. Page checksums protect pages that are read alone.
    """
    names = [field.name for field in without_dictionaries(schema) if pa.types.is_string(field.type)]
    return {"compression": "zstd", "write_page_checksum": True, "use_dictionary": names}


def write_rows(table: pa.Table, path: Path) -> None:
    """Write `table` to `path`; raises `OSError` if that fails."""
    # Opened here, because Arrow would take a path that begins with `file:` for a URL.
    with path.open("wb") as file:
        pq.write_table(table, file, **parquet_options(table.schema))


def parts_of(manifest: Manifest, table: str) -> list[Part]:
    """The parts of `table` that count, in order of step, including missing files.

    Raises `RunError` if the manifest is damaged, or missing although merged parts need it.
    """
    manifest.require_undamaged()
    folders = TABLES[table].folders if table in TABLES else (table,)
    names = {name for name in manifest.files if name.partition("/")[0] in folders}
    found = {
        f"{one}/{path.name}"
        for one in folders
        for path in (manifest.folder / one).glob("*.parquet")
    }
    # An unlisted file was written just before an interruption. It is complete and counts, unless it
    # is a merged part: then the parts that it was merged from still exist.
    unlisted = {
        name for name in found - names - manifest.removed if not _is_half_way(name, manifest)
    }
    parts = sorted(_parts(manifest.folder, names | unlisted))
    if not manifest.exists:
        _require_unmixed(manifest.folder, parts)
    return parts


def parse_part_name(path: Path) -> Part | None:
    """The part at `path`, by the name of the file; None if it is not named like a part."""
    found = _PATTERN.fullmatch(path.name)
    return Part(int(found[2]), int(found[3]), path) if found else None


def leftover_files(manifest: Manifest) -> list[Path]:
    """Files on the disk that do not count: removed ones, and merged parts never listed."""
    on_disk = (path.relative_to(manifest.folder).as_posix() for path in _parquet_files(manifest))
    names = [name for name in on_disk if name in manifest.removed or _is_half_way(name, manifest)]
    return [manifest.folder / name for name in sorted(names)]


def _parquet_files(manifest: Manifest) -> Iterator[Path]:
    return (path for path in manifest.folder.glob("*/*.parquet") if _PATTERN.fullmatch(path.name))


def _is_half_way(name: str, manifest: Manifest) -> bool:
    merged = Path(name).name.startswith("merged-")
    return merged and manifest.exists and name not in manifest.files


def _require_unmixed(folder: Path, parts: Sequence[Part]) -> None:
    """Make sure that no part lies beside a merged part that may contain its rows."""
    merged = [part for part in parts if part.is_merged]
    if any(
        one.first <= part.first and part.last <= one.last
        for one in merged
        for part in parts
        if part is not one
    ):
        raise RunError(
            f"{folder / MANIFEST_FILE} is missing, so it is not known which files of the run "
            "count: `python -m gradflow.runs check FOLDER --repair` lists them again"
        )


def _parts(folder: Path, names: set[str]) -> Iterator[Part]:
    for name in names:
        part = parse_part_name(folder / name)
        if part is not None:
            yield part
