"""Writes a run folder: `run.json` first, then each table in parts that appear whole or not at all.

run.json               configuration, versions, seeds, device, schema version, status
layers.parquet         one row a layer
<table>/part-*.parquet one file a range of steps, one column a quantity, zstd
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.description import read_description
from gradflow.runs.files import (
    EXPERIMENT_FILE,
    PART_PATTERN,
    RUN_FILE,
    part_name,
    write_json,
    write_whole,
)
from gradflow.runs.quantity import Table
from gradflow.runs.schema import SCHEMA_VERSION, TABLES

_ARROW_TYPES = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "list": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float32()),
    "bytes": pa.binary(),
    # Layer and parameter names repeat at every step: a dictionary stores each once.
    "str": pa.dictionary(pa.int32(), pa.string()),
}


def now() -> str:
    """The present time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunWriter:
    """Writes one run into `folder`, which is created and must not hold a run already.

    `description` goes into `run.json` as it is: it must be JSON.

    Raises `RunError` where the folder holds a run or experiment already, or cannot be written.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        claim_folder(self.folder)
        self._description: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": "run",
            "created": now(),
            "status": "running",
            **description,
        }
        self._write_description()

    @classmethod
    def resume(cls, folder: str | Path, *, before_step: int) -> "RunWriter":
        """A writer that goes on with the run in `folder`, all rows of later steps removed.

        Args:
            folder: the run's folder.
            before_step: the first step that is to be recorded again, where an epoch begins.

        Raises `RunError` where the folder holds no run of this schema.
        """
        description = read_description(Path(folder), RUN_FILE)
        writer = cls.reopen(folder, description)
        removed = 0
        for part in sorted(writer.folder.glob("*/part-*.parquet")):
            found = PART_PATTERN.fullmatch(part.name)
            if found and int(found[1]) >= before_step:
                part.unlink()
                removed += 1
        history = [
            *description.get("resumed", []),
            {"at": now(), "before_step": before_step, "parts_removed": removed},
        ]
        writer.describe(status="running", resumed=history)
        return writer

    @classmethod
    def reopen(cls, folder: str | Path, description: Mapping[str, Any]) -> "RunWriter":
        """A writer that adds tables to the run that is in `folder`, described by `description`."""
        writer = cls.__new__(cls)
        writer.folder, writer._description = Path(folder), dict(description)
        return writer

    def describe(self, **entries: Any) -> None:
        """Set further entries of `run.json`."""
        self._description.update(entries)
        self._write_description()

    def write_layers(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the table of layers, one row a layer in order of execution."""
        table = _to_arrow(TABLES["layers"], columns)
        write_whole(self.folder / "layers.parquet", lambda path: _write_parquet(table, path))

    def append(
        self, name: str, columns: Mapping[str, Any], first_step: int, last_step: int
    ) -> None:
        """Write the rows of steps `first_step` to `last_step` of table `name` as one part."""
        table = _to_arrow(TABLES[name], columns)
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        path = folder / part_name(first_step, last_step)
        write_whole(path, lambda temporary: _write_parquet(table, temporary))

    def close(self, status: str) -> None:
        """Record how the run ended: `complete`, `interrupted` or `failed`."""
        self.describe(status=status, ended=now())

    def _write_description(self) -> None:
        write_json(self.folder / RUN_FILE, self._description)


class MuteWriter(RunWriter):
    """Takes what a `RunWriter` takes and writes nothing: for processes beside the one that does."""

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)

    @classmethod
    def resume(cls, folder: str | Path, *, before_step: int) -> "MuteWriter":
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


class ExperimentWriter:
    """Writes `experiment.json`, which names the runs made together, before any of them starts.

    Raises `RunError` where the folder holds a run or experiment already, or cannot be written.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        claim_folder(self.folder)
        content = {
            "schema_version": SCHEMA_VERSION,
            "kind": "experiment",
            "created": now(),
            **description,
        }
        write_json(self.folder / EXPERIMENT_FILE, content)


def claim_folder(folder: Path) -> None:
    """Create `folder`, or raise `RunError` where it holds a run already or cannot be made."""
    for name in (RUN_FILE, EXPERIMENT_FILE):
        if (folder / name).exists():
            raise RunError(
                f"{folder} holds a {Path(name).stem} already ({name}): "
                "name another output folder, or move this one away"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _to_arrow(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    known = {quantity.name: _ARROW_TYPES[quantity.dtype] for quantity in table.columns}
    missing, extra = known.keys() - columns.keys(), columns.keys() - known.keys()
    if missing or (extra and not table.open_ended):
        raise ValueError(f"table {table.name}: missing {sorted(missing)}, unknown {sorted(extra)}")
    # A value not observed comes as None; NaN is a value that was observed.
    arrays = {name: pa.array(columns[name], type=known.get(name)) for name in columns}
    return pa.table(arrays)


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")
