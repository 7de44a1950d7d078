"""Removes the rows of a run from a given step on, so that they can be recorded again."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradflow.runs.format.files import remove, remove_temporary_files, write_atomically
from gradflow.runs.format.limits import require_inside
from gradflow.runs.format.manifest import Manifest, read_manifest, record_change
from gradflow.runs.format.parts import Part, leftover_files, part_name, parts_of, write_rows
from gradflow.runs.reading.part import read_part


def roll_back(run_folder: Path, epoch: int, step: int) -> int:
    """Remove all rows from `step` on, or from `epoch` on if a table has no steps.

    Parts that begin at `step` or later are removed. A part with rows before and after it is
    rewritten. Leftovers of interruptions are removed too: temporary files and merged parts.

    Returns the number of rows removed.

    Raises `RunError` if the manifest, or a part to be rewritten, is damaged.
    """
    removed = 0
    manifest = read_manifest(run_folder)
    manifest.require_undamaged()
    remove_temporary_files(run_folder)
    for path in leftover_files(manifest):
        remove(path)
    for folder in sorted(path for path in run_folder.iterdir() if path.is_dir()):
        for part in parts_of(manifest, folder.name):
            require_inside(run_folder, part.path)
            if part.first >= step:
                removed += _remove(run_folder, part)
            elif part.last >= step:
                removed += _cut(manifest, part, epoch, step)
    return removed


def _remove(run_folder: Path, part: Part) -> int:
    try:
        rows = int(pq.read_metadata(part.path).num_rows)
    except (pa.ArrowException, OSError):
        rows = 0  # damaged or missing: it will be recorded again
    # Recorded first: a file that still exists but no longer counts does no harm.
    record_change(run_folder, removed=[part.path])
    remove(part.path)
    return rows


def _cut(manifest: Manifest, part: Part, epoch: int, step: int) -> int:
    """Write the rows of `part` before `step` as a new part, then remove `part`."""
    table = read_part(manifest, part)
    by_step = "step" in table.column_names
    column, end = (table["step"], step) if by_step else (table["epoch"], epoch)
    kept = table.filter(pc.less(column, pa.scalar(end, column.type)))
    # Named as merged, so that it counts only once the manifest lists it and removes `part`.
    path = part.path.with_name(part_name(part.first, step - 1, merged=True))
    write_atomically(path, lambda temporary: write_rows(kept, temporary))
    record_change(manifest.folder, [path], [part.path])
    remove(part.path)
    return int(table.num_rows - kept.num_rows)
