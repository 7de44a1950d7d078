"""Writes a run folder: first `run.json`, then each table in parts that are written atomically.

run.json               configuration, versions, seeds, device, schema version, status
manifest.jsonl         the list of files with their checksums
layers.parquet         one row per layer
<table>/part-*.parquet one file per range of steps, one column per quantity, zstd
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from gradflow.errors import RunError
from gradflow.runs.format.description import read_description
from gradflow.runs.format.files import (
    EXPERIMENT_FILE,
    LAYERS_FILE,
    RUN_FILE,
    make_folder,
    remove_temporary_files,
    write_atomically,
    write_json,
)
from gradflow.runs.format.limits import require_valid_path
from gradflow.runs.format.manifest import (
    read_manifest,
    record_change,
    write_listed,
    write_manifest,
)
from gradflow.runs.format.parts import ARROW_TYPES, Part, part_name, write_rows
from gradflow.runs.format.quantity import Table
from gradflow.runs.format.schema import SCHEMA_VERSION, TABLES
from gradflow.runs.writing.arrow_arrays import to_array
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.merging import PartMerger, remove_leftovers
from gradflow.runs.writing.rebuilding import rebuild_manifest
from gradflow.runs.writing.rollback import roll_back

# Layer and parameter names repeat at every step: a dictionary stores each once.
_WRITTEN_TYPES = ARROW_TYPES | {"str": pa.dictionary(pa.int32(), pa.string())}


def now() -> str:
    """The present time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunWriter:
    """Writes one run into `folder`, which is created and must not yet hold a run.

    `description` is stored in `run.json` unchanged, so it must be valid JSON.

    Raises `RunError` if the folder already holds a run or experiment, or cannot be written.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        claim_folder(Path(folder))
        self._open(Path(folder), {})
        remove_temporary_files(self.folder)
        # Written first, so that a run without a manifest must have lost it.
        write_manifest(self.folder, {})
        self._description: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": "run",
            "created": now(),
            "status": "running",
            **description,
        }
        self._write_description()

    @classmethod
    def reopen(cls, folder: str | Path) -> Self:
        """A writer that adds tables to the existing run in `folder`.

        Raises `RunError` if the folder holds no readable run, or another process writes there.
        """
        folder = Path(folder)
        description = read_description(folder, RUN_FILE)
        writer = cls.__new__(cls)
        writer._open(folder, description)
        try:
            if description["schema_version"] < SCHEMA_VERSION:
                # Older versions of gradflow cannot read the tables that are added from here on.
                writer.describe(schema_version=SCHEMA_VERSION)
            if not read_manifest(folder).exists:
                rebuild_manifest(folder)
        except BaseException:
            writer.release()
            raise
        return writer

    @classmethod
    def resume(cls, folder: str | Path, *, epoch: int, step: int) -> Self:
        """A writer that continues the run in `folder` from the beginning of an epoch.

        Args:
            folder: the run's folder.
            epoch: the first epoch to be recorded again, counted from 1.
            step: the first step of that epoch, counted from 0; rows from there on are removed.

        Raises `RunError` if the folder holds no readable run, or another process writes there.
        """
        writer = cls.reopen(folder)
        try:
            removed = roll_back(writer.folder, epoch, step)
        except BaseException:
            writer.release()
            raise
        entry = {"at": now(), "epoch": epoch, "step": step, "rows_removed": removed}
        resumed = [*writer._description.get("resumed", []), entry]
        writer._description = {
            name: value
            for name, value in writer._description.items()
            if name not in ("ended", "first_nonfinite", "stopped_by")
        }
        if "set_aside" in writer._description:
            # Rows lost from `step` on are about to be recorded again.
            lost = writer._description["set_aside"]
            writer._description["set_aside"] = [one for one in lost if one["first_step"] < step]
        writer.describe(status="running", resumed=resumed)
        return writer

    def _open(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self._lock = FolderLock(folder)
        self._description = dict(description)
        self._merger = PartMerger(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def description(self) -> Mapping[str, Any]:
        """The entries of `run.json`."""
        return self._description

    def describe(self, **entries: Any) -> None:
        """Set further entries of `run.json`."""
        self._description.update(entries)
        self._write_description()

    def write_layers(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the table of layers, one row per layer in order of execution."""
        table = _to_arrow(TABLES["layers"], columns)
        self._write_table(self.folder / LAYERS_FILE, table)

    def append(
        self, name: str, columns: Mapping[str, Any], first_step: int, last_step: int
    ) -> None:
        """Write the rows of steps `first_step` to `last_step` of table `name` as one part."""
        self.append_all({name: columns}, first_step, last_step)

    def append_all(
        self, tables: dict[str, Mapping[str, Any]], first_step: int, last_step: int
    ) -> None:
        """Write the rows of steps `first_step` to `last_step` of each of `tables` as one part.

        A table leaves `tables` once it is written: after an error those that are left are not. The
        manifest lists all parts at once, because a flush to the disk takes as long as writing one.
        """
        new: list[Path] = []
        written: list[tuple[str, Part, int]] = []
        try:
            for name in list(tables):
                rows = _to_arrow(TABLES[name], tables[name])
                path = self.folder / name / part_name(first_step, last_step)
                # Otherwise an interrupted merge already holds these rows.
                if not self._merger.has_merged(path):
                    make_folder(path.parent)
                    if path.exists():
                        self._write_table(path, rows)
                    else:
                        write_atomically(path, partial(write_rows, rows))
                        new.append(path)
                    written.append((name, Part(first_step, last_step, path), rows.num_rows))
                del tables[name]
        finally:
            if new:
                record_change(self.folder, new)
        for name, part, count in written:
            self._merger.add(name, part, count)

    def close(self, status: str) -> None:
        """Record how the run ended (`complete`, `interrupted` or `failed`) and release the lock."""
        if status == "complete":
            remove_leftovers(self.folder)
        self.describe(status=status, ended=now())
        self.release()

    def release(self) -> None:
        """Release the lock, and leave the status unchanged."""
        self._lock.release()

    def _write_table(self, path: Path, table: pa.Table) -> None:
        write_listed(self.folder, path, lambda temporary: write_rows(table, temporary))

    def _write_description(self) -> None:
        write_json(self.folder / RUN_FILE, self._description)


class NullRunWriter(RunWriter):
    """A `RunWriter` that writes nothing, for processes other than the one that writes."""

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)

    @classmethod
    def resume(cls, folder: str | Path, *, epoch: int, step: int) -> Self:
        """A writer that writes nothing."""
        return cls(folder, {})

    def describe(self, **entries: Any) -> None:
        """Nothing."""

    def write_layers(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Nothing."""

    def append(
        self, name: str, columns: Mapping[str, Any], first_step: int, last_step: int
    ) -> None:
        """Nothing."""

    def append_all(
        self, tables: dict[str, Mapping[str, Any]], first_step: int, last_step: int
    ) -> None:
        """Forget the `tables`, as if they were written."""
        tables.clear()

    def release(self) -> None:
        """Nothing."""


class ExperimentWriter:
    """Writes `experiment.json`, which names the runs of an experiment before any of them starts.

    Raises `RunError` if the folder already holds a run or experiment, or cannot be written.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        claim_folder(self.folder)
        remove_temporary_files(self.folder)
        content = {
            "schema_version": SCHEMA_VERSION,
            "kind": "experiment",
            "created": now(),
            **description,
        }
        write_json(self.folder / EXPERIMENT_FILE, content)


def note_export(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add to the `sinks` of `run.json` that the run was written to one, whose entry is `entry`.

    It takes the place of an earlier export of the same kind to the same place.

    Raises `RunError` if another process writes the run, or if the folder cannot be written.
    """
    with FolderLock(folder):
        description = read_description(folder, RUN_FILE)
        place = (entry.get("kind"), entry.get("place"))
        sinks = [
            one
            for one in description.get("sinks") or []
            if not (one.get("exported") and (one.get("kind"), one.get("place")) == place)
        ]
        description["sinks"] = [*sinks, {**entry, "exported": now()}]
        write_json(folder / RUN_FILE, description)


def claim_folder(folder: Path) -> None:
    """Create `folder`; raise `RunError` if it already holds a run or cannot be created."""
    require_valid_path(folder)
    for name, content in ((RUN_FILE, "a run"), (EXPERIMENT_FILE, "an experiment")):
        if (folder / name).exists():
            raise RunError(
                f"{folder} already holds {content} ({name}): "
                "name another output folder, or move this one away"
            )
    if folder.is_dir() and read_manifest(folder).files:
        raise RunError(
            f"{folder} holds a run that has lost its {RUN_FILE}: name another output folder, or "
            "see `python -m gradflow.runs check FOLDER`"
        )
    make_folder(folder)


def _to_arrow(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    known = {quantity.name: _WRITTEN_TYPES[quantity.dtype] for quantity in table.columns}
    missing, extra = known.keys() - columns.keys(), columns.keys() - known.keys()
    if missing or (extra and not table.open_ended):
        raise ValueError(f"table {table.name}: missing {sorted(missing)}, unknown {sorted(extra)}")
    # None stands for a value that was not observed; NaN is an observed value.
    arrays = {name: to_array(columns[name], known.get(name)) for name in columns}
    return pa.table(arrays)
