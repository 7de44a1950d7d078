"""Rebuilds a missing or damaged manifest from the files on the disk."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from gradflow.errors import RunError
from gradflow.runs.format.files import LAYERS_FILE, WEIGHTS_PATTERNS
from gradflow.runs.format.limits import is_file_inside
from gradflow.runs.format.manifest import Manifest, entry_of, name_in, write_manifest
from gradflow.runs.format.parts import Part, parse_part_name
from gradflow.runs.format.schema import TABLE_OF_FOLDER
from gradflow.runs.reading.part import read_part


def rebuild_manifest(run_folder: Path) -> list[Path]:
    """Write a manifest that lists every file of the run in `run_folder` with its present content.

    An interruption may have left both a merged part and the parts that it replaces; then only the
    merged part counts. Files outside the run's folder are left out.

    Returns the parts that do not count. They may be removed.

    Raises `RunError` if the folder cannot be written.
    """
    spent = [part.path for table in TABLE_OF_FOLDER for part in _merged_already(run_folder, table)]
    gone = frozenset(name_in(run_folder, path) for path in spent)
    own = (path for path in run_files(run_folder) if is_file_inside(run_folder, path))
    present = {name_in(run_folder, path): path for path in own}
    files = {name: (entry_of(path),) for name, path in present.items() if name not in gone}
    write_manifest(run_folder, files, gone)
    return spent


def run_files(run_folder: Path) -> Iterator[Path]:
    """The files on the disk that the manifest of the run in `run_folder` should list."""
    layers = run_folder / LAYERS_FILE
    if layers.is_file():
        yield layers
    for table in TABLE_OF_FOLDER:
        yield from sorted(p for p in (run_folder / table).glob("*.parquet") if parse_part_name(p))
    for pattern in WEIGHTS_PATTERNS:
        yield from sorted(run_folder.glob(pattern))


def _merged_already(run_folder: Path, table: str) -> Iterator[Part]:
    """The parts of `table` whose rows are all in another, merged part."""
    found = map(parse_part_name, (run_folder / table).glob("*.parquet"))
    # Longest first, because a merged part may have been merged again.
    parts = sorted((part for part in found if part), key=_longest_first)
    whole: list[tuple[Part, pa.Table]] = []
    for part in parts:
        around = [one for one in whole if one[0].first <= part.first and part.last <= one[0].last]
        if not (around or part.is_merged):
            continue
        keys = _keys(run_folder, table, part)
        if keys is None:
            continue
        if any(_holds(other, keys) for _, other in around):
            yield part
        elif part.is_merged:
            whole.append((part, keys))


def _longest_first(part: Part) -> tuple[int, bool]:
    return part.first - part.last, not part.is_merged


def _keys(run_folder: Path, table: str, part: Part) -> pa.Table | None:
    """The key columns of `part`; None if it cannot be read."""
    try:
        rows = read_part(Manifest(run_folder, exists=False), part)
    except RunError:
        return None
    names = [key.name for key in TABLE_OF_FOLDER[table].keys if key.name in rows.column_names]
    return rows.select(names)


def _holds(rows: pa.Table, wanted: pa.Table) -> bool:
    names = wanted.column_names
    return rows.column_names == names and not len(wanted.join(rows, names, join_type="left anti"))
