"""The names and the safe writing of the files in a run folder, shared by writer and reader."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RUN_FILE = "run.json"
EXPERIMENT_FILE = "experiment.json"
PART_PATTERN = re.compile(r"part-(\d{10})-(\d{10})\.parquet")


def part_name(first_step: int, last_step: int) -> str:
    """The file name of the part that holds the rows of steps first_step to last_step."""
    return f"part-{first_step:010d}-{last_step:010d}.parquet"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, then rename it to `path`.

    A reader never sees half a file: either the old one, or the new one, or none.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path` whole, indented, in UTF-8."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda temporary: _write_text(temporary, text + "\n"))


def moment_of(created: object) -> datetime | None:
    """The date that a description names as `created`, in UTC; None where it is none."""
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
