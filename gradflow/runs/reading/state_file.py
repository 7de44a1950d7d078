"""Finds and verifies the saved state from which an interrupted training resumes.

state.json names the file with the state, and its SHA-256. Only `gradflow.training.state` knows the
content of that file.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.format.files import STATE_FILE
from gradflow.runs.format.limits import (
    LARGEST_DESCRIPTION,
    read_bounded,
    require_inside,
    require_memory,
    require_regular_file,
)

_NAME = re.compile(r"state-\d{1,20}\.pt", re.ASCII)


def state_path(run_folder: Path) -> Path | None:
    """The file that state.json names; None if there is no state.json.

    Raises `RunError` if it is damaged.
    """
    return _entry(run_folder)[0] if (run_folder / STATE_FILE).exists() else None


def read_state(run_folder: Path) -> bytes | None:
    """The content of the state from which the run in `run_folder` resumes; None if it has none.

    Raises `RunError` if the state is missing, damaged, or too large.
    """
    if not (run_folder / STATE_FILE).exists():
        return None
    path, digest = _entry(run_folder)
    require_inside(run_folder, path)
    require_regular_file(path)
    try:
        require_memory(f"the file {path}", path.stat().st_size)
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise damaged_state_error(run_folder, f"{path.name} is missing") from error
    except OSError as error:
        raise damaged_state_error(run_folder, f"{path.name}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise damaged_state_error(run_folder, f"the checksum of {path.name} differs")
    return data


def damaged_state_error(run_folder: Path, reason: str) -> RunError:
    """The error to raise if the state of the run in `run_folder` cannot be used."""
    return RunError(
        f"the state in {run_folder} cannot be read ({reason}), so its training cannot go on: "
        f"remove {STATE_FILE} to train this run again from its first epoch"
    )


def _entry(run_folder: Path) -> tuple[Path, str]:
    try:
        entry: Any = json.loads(read_bounded(run_folder / STATE_FILE, LARGEST_DESCRIPTION))
        # The name must not lead out of the run's folder.
        if not _NAME.fullmatch(entry["file"]):
            raise ValueError("it does not name a state file")
        return run_folder / entry["file"], str(entry["sha256"])
    except (RunError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_state_error(run_folder, f"{STATE_FILE} is damaged") from error
