"""The files of a run that count: which parts each table has, and in which order.

part-<first>-<last>.parquet    rows of a range of steps, as they were appended
merged-<first>-<last>.parquet  many parts made one; counts once the manifest lists it, and from then
                               on those that it was made of, which the manifest calls gone, do not
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

# A column of merged parts alone: the place that each row had.
ROW_COLUMN = "row"

# How the schema's types of columns are read back; layer and parameter names are written otherwise.
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
    """A file with the rows of steps `first` to `last` of a table."""

    first: int
    last: int
    path: Path

    @property
    def is_merged(self) -> bool:
        """Whether it was made of others."""
        return self.path.name.startswith("merged-")


def part_name(first_step: int, last_step: int, *, merged: bool = False) -> str:
    """The file name of the part that holds the rows of steps first_step to last_step.

    Raises `RunError` where there is none, as the rows would never be read again.
    """
    if not (0 <= first_step < _STEPS and 0 <= last_step < _STEPS):
        raise RunError(
            f"no part can hold rows of steps {first_step} to {last_step}: "
            f"steps are counted from 0, to {_STEPS:,} at most"
        )
    return f"{'merged' if merged else 'part'}-{first_step:010d}-{last_step:010d}.parquet"


def without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """`schema` with names as plain strings, whether a part has them so or in a dictionary."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How Arrow is to write every file with the rows of a table that has `schema`.

    Names are written once each, with numbers that refer to them. Measured values hardly ever occur
    twice: with such numbers they would take more room, and twice the time. The pages' checksums
    guard those that are read without the others.
    """
    names = [field.name for field in without_dictionaries(schema) if pa.types.is_string(field.type)]
    return {"compression": "zstd", "write_page_checksum": True, "use_dictionary": names}


def write_rows(table: pa.Table, path: Path) -> None:
    """Write `table` to `path`; raises `OSError` where that fails."""
    # Opened here: Arrow would take a path that begins with `file:` for an address, elsewhere.
    with path.open("wb") as file:
        pq.write_table(table, file, **parquet_options(table.schema))


def parts_of(manifest: Manifest, table: str) -> list[Part]:
    """The parts of `table` that count, in order of step, those that are missing included.

    Raises `RunError` where the manifest is damaged, or lost although it is needed to tell.
    """
    manifest.require_undamaged()
    folders = TABLES[table].folders if table in TABLES else (table,)
    names = {name for name in manifest.files if name.partition("/")[0] in folders}
    found = {
        f"{one}/{path.name}"
        for one in folders
        for path in (manifest.folder / one).glob("*.parquet")
    }
    # What is on the disk and not listed was written just before an interruption; whole, all the
    # same, but a merged one, whose parts are still there.
    unlisted = {
        name for name in found - names - manifest.removed if not _is_half_way(name, manifest)
    }
    parts = sorted(_parts(manifest.folder, names | unlisted))
    if not manifest.exists:
        _require_unmixed(manifest.folder, parts)
    return parts


def parse_part_name(path: Path) -> Part | None:
    """The part that the file `path` is by its name; None where it is none."""
    found = _PATTERN.fullmatch(path.name)
    return Part(int(found[2]), int(found[3]), path) if found else None


def leftover_files(manifest: Manifest) -> list[Path]:
    """Files that count no more, or never did, and that an interruption left on the disk."""
    on_disk = (path.relative_to(manifest.folder).as_posix() for path in _parquet_files(manifest))
    names = [name for name in on_disk if name in manifest.removed or _is_half_way(name, manifest)]
    return [manifest.folder / name for name in sorted(names)]


def _parquet_files(manifest: Manifest) -> Iterator[Path]:
    return (path for path in manifest.folder.glob("*/*.parquet") if _PATTERN.fullmatch(path.name))


def _is_half_way(name: str, manifest: Manifest) -> bool:
    merged = Path(name).name.startswith("merged-")
    return merged and manifest.exists and name not in manifest.files


def _require_unmixed(folder: Path, parts: Sequence[Part]) -> None:
    """Make sure that no part is there beside one that it may have been merged into."""
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
