"""Writes a run folder: `run.json` first, then each table in parts that appear whole or not at all.

run.json               configuration, versions, seeds, device, schema version, status
manifest.jsonl         which files there are, with their checksums
layers.parquet         one row a layer
<table>/part-*.parquet one file a range of steps, one column a quantity, zstd
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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
    write_json,
)
from gradflow.runs.format.limits import require_valid_path
from gradflow.runs.format.manifest import read_manifest, write_listed, write_manifest
from gradflow.runs.format.parts import ARROW_TYPES, Part, part_name, write_rows
from gradflow.runs.format.quantity import Table
from gradflow.runs.format.schema import SCHEMA_VERSION, TABLES
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
    """Writes one run into `folder`, which is created and must not hold a run already.

    `description` goes into `run.json` as it is: it must be JSON.

    Raises `RunError` where the folder holds a run or experiment already, or cannot be written.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        claim_folder(Path(folder))
        self._open(Path(folder), {})
        remove_temporary_files(self.folder)
        # First: from here on a run without a manifest is one that has lost it.
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
        """A writer that adds tables to the run that is in `folder`.

        Raises `RunError` where the folder holds no run of this schema, or is being written.
        """
        folder = Path(folder)
        description = read_description(folder, RUN_FILE)
        writer = cls.__new__(cls)
        writer._open(folder, description)
        try:
            if description["schema_version"] < SCHEMA_VERSION:
                # What is added from here on, older versions of gradflow cannot read.
                writer.describe(schema_version=SCHEMA_VERSION)
            if not read_manifest(folder).exists:
                rebuild_manifest(folder)
        except BaseException:
            writer.release()
            raise
        return writer

    @classmethod
    def resume(cls, folder: str | Path, *, epoch: int, step: int) -> Self:
        """A writer that goes on with the run in `folder` from the beginning of an epoch.

        Args:
            folder: the run's folder.
            epoch: the first epoch that is to be recorded again, counted from 1.
            step: the step it begins with, counted from 0; rows from there on are removed.

        Raises `RunError` where the folder holds no run of this schema, or is being written.
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
            # What was lost from here on is about to be recorded again.
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

    def describe(self, **entries: Any) -> None:
        """Set further entries of `run.json`."""
        self._description.update(entries)
        self._write_description()

    def write_layers(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the table of layers, one row a layer in order of execution."""
        table = _to_arrow(TABLES["layers"], columns)
        self._write_table(self.folder / LAYERS_FILE, table)

    def append(
        self, name: str, columns: Mapping[str, Any], first_step: int, last_step: int
    ) -> None:
        """Write the rows of steps `first_step` to `last_step` of table `name` as one part."""
        table = _to_arrow(TABLES[name], columns)
        folder = self.folder / name
        path = folder / part_name(first_step, last_step)
        if self._merger.has_merged(path):
            return  # an interruption came as its rows were merged, and they are given once more
        make_folder(folder)
        self._write_table(path, table)
        self._merger.add(name, Part(first_step, last_step, path), table.num_rows)

    def close(self, status: str) -> None:
        """Record how the run ended: `complete`, `interrupted` or `failed`; let others write."""
        if status == "complete":
            remove_leftovers(self.folder)
        self.describe(status=status, ended=now())
        self.release()

    def release(self) -> None:
        """Let others write, the status left as it is."""
        self._lock.release()

    def _write_table(self, path: Path, table: pa.Table) -> None:
        write_listed(self.folder, path, lambda temporary: write_rows(table, temporary))

    def _write_description(self) -> None:
        write_json(self.folder / RUN_FILE, self._description)


class NullRunWriter(RunWriter):
    """Takes what a `RunWriter` takes and writes nothing: for processes beside the one that does."""

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)

    @classmethod
    def resume(cls, folder: str | Path, *, epoch: int, step: int) -> Self:
        """A writer of nothing."""
        return cls(folder, {})

    def describe(self, **entries: Any) -> None:
        """Nothing."""

    def write_layers(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Nothing."""

    def append(
        self, name: str, columns: Mapping[str, Any], first_step: int, last_step: int
    ) -> None:
        """Nothing."""

    def release(self) -> None:
        """Nothing."""


class ExperimentWriter:
    """Writes `experiment.json`, which names the runs made together, before any of them starts.

    Raises `RunError` where the folder holds a run or experiment already, or cannot be written.
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


def claim_folder(folder: Path) -> None:
    """Create `folder`, or raise `RunError` where it holds a run already or cannot be made."""
    require_valid_path(folder)
    for name in (RUN_FILE, EXPERIMENT_FILE):
        if (folder / name).exists():
            raise RunError(
                f"{folder} holds a {Path(name).stem} already ({name}): "
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
    # A value not observed comes as None; NaN is a value that was observed.
    arrays = {name: pa.array(columns[name], type=known.get(name)) for name in columns}
    return pa.table(arrays)
