"""Finds the folder of an experiment or run: the newest one, or one by its name."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from gradflow.errors import RunError
from gradflow.runs.format.files import EXPERIMENT_FILE, RUN_FILE, parse_utc_time
from gradflow.runs.format.limits import LARGEST_DESCRIPTION, read_bounded, require_valid_path

RUNS_FOLDER = Path("runs")
_LONGEST_NAME = 80


def newest_experiment(runs_folder: Path) -> Path:
    """The experiment or single run directly in `runs_folder` that was created last.

    Raises `RunError` if there is none.
    """
    found: list[tuple[datetime, str, Path]] = []
    for name in (EXPERIMENT_FILE, RUN_FILE):
        for path in runs_folder.glob(f"*/{name}"):
            created = _created(path)
            if created is not None:
                found.append((created, path.parent.name, path.parent))
    if not found:
        raise RunError(
            f"there is no experiment in {runs_folder}: record one with "
            "`python -m gradflow.train_and_trace`, or name the folder of one"
        )
    return max(found)[2]


def find_folder(named: Path, runs_folder: Path) -> Path:
    """The folder that `named` means: the path itself, or the folder of that name in `runs_folder`.

    Commands printed in a report name experiments by `name_for_commands`. They work in the directory
    in which the experiment was recorded, and in the folder that holds it.

    Raises `RunError` if neither exists.
    """
    inside = runs_folder / named
    for folder in (named, inside):
        require_valid_path(folder)
        if _is_recorded(folder):
            return folder
    if named.is_dir():
        return named  # opening it will raise a fitting error
    if named.is_absolute():
        raise RunError(f"there is no folder {named}")
    raise RunError(f"there is no folder {named}, and none in {runs_folder}: name one by its path")


def name_for_commands(folder: Path) -> str:
    """The name of `folder` for a command; a run of an experiment is `experiment/run`."""
    folder = folder.resolve()
    if (folder.parent / EXPERIMENT_FILE).exists():
        return f"{folder.parent.name}/{folder.name}"
    return folder.name


def comparison_name(folders: Sequence[Path]) -> str:
    """The folder name of a comparison, e.g. `comparison-A-B`; a long name is shortened."""
    names = [folder.resolve().name for folder in folders]
    name = "-".join(["comparison", *names])
    if len(name) <= _LONGEST_NAME:
        return name
    # A hash stands for the rest, so that comparisons with the same beginning do not collide.
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}-{digest}"


def _is_recorded(folder: Path) -> bool:
    return any((folder / name).exists() for name in (EXPERIMENT_FILE, RUN_FILE))


def _created(path: Path) -> datetime | None:
    try:
        return parse_utc_time(json.loads(read_bounded(path, LARGEST_DESCRIPTION))["created"])
    except (RunError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # not a description written by gradflow
