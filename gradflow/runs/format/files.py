"""File names in a run folder, and writing that leaves no half-written file."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradflow.errors import RunError

RUN_FILE = "run.json"
EXPERIMENT_FILE = "experiment.json"
LAYERS_FILE = "layers.parquet"
BEST_FILE = "best.pt"
CHECKPOINTS_FOLDER = "checkpoints"
WEIGHTS_PATTERNS = (BEST_FILE, f"{CHECKPOINTS_FOLDER}/epoch-*.pt")
STATE_FILE = "state.json"
STATE_PATTERN = "state-*.pt"
DAMAGED_FOLDER = "damaged"
TEMPORARY_PATTERN = ".*.tmp"


def fault_point(name: str) -> None:
    """Does nothing. Tests replace it to stop the program, or to fail, at the point `name`."""


def write_atomically(
    path: Path, write: Callable[[Path], None], before: Callable[[Path], None] | None = None
) -> None:
    """Let `write` fill a temporary file, flush it to the disk, then rename it to `path`.

    A reader never sees half a file, but the old one, the new one, or none. `before` is called with
    the finished temporary file just before the renaming.

    Raises `RunError` if the disk is full or the file cannot be written for another reason.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.unlink(missing_ok=True)  # if we did not write the folder, it may be a link
            write(temporary)
            fault_point("written")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            fault_point("flushed")
            if before is not None:
                before(temporary)
            temporary.replace(path)
            fault_point("renamed")
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path} cannot be written: {reason}") from error


def append(path: Path, content: bytes) -> None:
    """Add `content` at the end of `path` and flush it to the disk.

    Raises `RunError` if that fails.
    """
    try:
        with path.open("ab") as file:
            file.write(content)
            fault_point("appended")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def remove(path: Path) -> None:
    """Remove the file at `path`, if there is one.

    Raises `RunError` if it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path} cannot be removed: {error.strerror or error}") from error


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that interrupted writing left in `folder` and its subfolders.

    Call it only while no other process writes there. Raises `RunError` if removing a file fails.
    """
    for path in matching_files(folder, TEMPORARY_PATTERN, f"*/{TEMPORARY_PATTERN}"):
        remove(path)


def matching_files(folder: Path, *patterns: str) -> list[Path]:
    """The files and links in `folder` that match `patterns`; folders are left out."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return [path for path in found if path.is_symlink() or not path.is_dir()]


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents if they do not exist.

    Raises `RunError` if that fails.
    """
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            _flush_folder(path.parent)  # else a power cut may lose it with its content
    except OSError as error:
        raise RunError(f"the folder {folder} cannot be made: {error.strerror}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path` as indented JSON in UTF-8, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda temporary: _write_text(temporary, text + "\n"))


def parse_utc_time(created: object) -> datetime | None:
    """The date in the entry `created` of a description, in UTC; None if it is not a date."""
    try:
        moment = datetime.fromisoformat(str(created))
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _flush_folder(folder: Path) -> None:
    # A rename is on disk only once its folder is; Windows cannot open a folder and needs no flush.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
