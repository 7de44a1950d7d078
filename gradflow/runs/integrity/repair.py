"""Sets damaged files of a run or an experiment aside, so that the rest can be read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.format.files import (
    DAMAGED_FOLDER,
    EXPERIMENT_FILE,
    LAYERS_FILE,
    RUN_FILE,
    STATE_FILE,
    STATE_PATTERN,
    fault_point,
    make_folder,
    remove,
    write_json,
)
from gradflow.runs.format.limits import require_inside
from gradflow.runs.format.manifest import MANIFEST_FILE, name_in, read_manifest, record_change
from gradflow.runs.format.parts import parse_part_name
from gradflow.runs.format.schema import SCHEMA_VERSION
from gradflow.runs.integrity.check import FileFinding, RunCheck, check_run, runs_in
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.rebuilding import rebuild_manifest
from gradflow.runs.writing.run import now


@dataclass(frozen=True)
class RepairAction:
    """What a repair did with a file, and why."""

    path: Path
    what: str
    reason: str


def repair(folder: Path) -> list[RepairAction]:
    """Repair the run or experiment in `folder`; returns what was done.

    Damaged files are moved to the folder `damaged` of their run and entered in the list `set_aside`
    of its `run.json`. Leftovers of interruptions are removed. Unlisted files are listed.

    Raises `RunError` if another process writes there, or the folder cannot be written.
    """
    runs, beside = runs_in(folder)
    done: list[RepairAction] = []
    with FolderLock(folder):
        if folder not in runs:
            done += _repair_experiment(folder, [run.name for run in runs], beside)
        else:
            done += _repair_run(folder)
    for run in runs:
        if run != folder:
            with FolderLock(run):
                done += _repair_run(run)
    return done


def _repair_experiment(
    folder: Path, runs: list[str], findings: list[FileFinding]
) -> Iterator[RepairAction]:
    for finding in findings:
        if finding.path.name != EXPERIMENT_FILE:
            remove(finding.path)
            yield RepairAction(finding.path, "removed", finding.reason)
            continue
        _move(folder, finding.path)
        # The options are lost, so the experiment can be read but no longer resumed.
        content = {"schema_version": SCHEMA_VERSION, "kind": "experiment", "rebuilt": now()}
        write_json(finding.path, content | {"runs": runs})
        yield RepairAction(finding.path, "rewritten", "it names the runs, no longer their options")


def _repair_run(folder: Path) -> Iterator[RepairAction]:
    checked = check_run(folder)
    description = _readable_description(checked)
    if not checked.description:
        yield RepairAction(folder / RUN_FILE, "rewritten", "its content is lost")
    manifest = checked.manifest
    damaged = [
        finding
        for finding in checked.of_kind("damaged")
        if finding.path.name not in (RUN_FILE, MANIFEST_FILE)
    ]
    _describe(checked, description, damaged)
    yield from _set_aside(folder, damaged)
    for finding in checked.of_kind("left over"):
        remove(finding.path)
        yield RepairAction(finding.path, "removed", finding.reason)
    if manifest.damaged or not manifest.exists:
        for path in rebuild_manifest(folder):
            remove(path)
            yield RepairAction(path, "removed", "another file holds its rows")
        reason = "it lists the existing files with their present checksums"
        yield RepairAction(folder / MANIFEST_FILE, "rewritten", reason)
        return
    unlisted = [finding.path for finding in checked.of_kind("unlisted")]
    if unlisted:
        record_change(folder, written=unlisted)
        for path in unlisted:
            yield RepairAction(path, "listed", "complete, written just before an interruption")


def _readable_description(checked: RunCheck) -> dict[str, Any]:
    """The content of `run.json`, or a replacement if it is lost; with the current schema."""
    if checked.description:
        listed = checked.manifest.exists
        return checked.description | ({} if listed else {"schema_version": SCHEMA_VERSION})
    _move(checked.folder, checked.folder / RUN_FILE)
    return {"schema_version": SCHEMA_VERSION, "kind": "run", "status": "unknown", "rebuilt": now()}


def _describe(checked: RunCheck, description: dict[str, Any], damaged: list[FileFinding]) -> None:
    """Write `run.json`, with an entry for each of the damaged files."""
    listed = description.get("set_aside")
    known = listed if isinstance(listed, list) else []
    names = {str(entry["file"]) for entry in known if isinstance(entry, dict) and "file" in entry}
    new = [_entry(checked.folder, finding) for finding in damaged]
    added = [entry for entry in new if entry["file"] not in names]
    if added:
        description = description | {"set_aside": [*known, *added]}
    if description != checked.description:
        # Written before any file is moved: after an interruption the run still says what it lacks.
        write_json(checked.folder / RUN_FILE, description)
        fault_point("described")


def _entry(folder: Path, finding: FileFinding) -> dict[str, Any]:
    name = name_in(folder, finding.path)
    part = parse_part_name(finding.path)
    table = "layers" if name == LAYERS_FILE else finding.path.parent.name if part else None
    return {
        "at": now(),
        "file": name,
        "reason": finding.reason,
        "table": table,
        "first_step": part.first if part else 0,
        "last_step": part.last if part else 0,
    }


def _set_aside(folder: Path, damaged: list[FileFinding]) -> Iterator[RepairAction]:
    for finding in damaged:
        moved = _move(folder, finding.path)
        if finding.path.name == STATE_FILE:
            for path in folder.glob(STATE_PATTERN):
                _move(folder, path)
            reason = "--resume will train this run from its first epoch"
            yield RepairAction(finding.path, "set aside", reason)
            continue
        fault_point("moved")
        yield RepairAction(finding.path, "set aside" if moved else "noted", finding.reason)
    manifest = read_manifest(folder)
    known = [finding.path for finding in damaged if manifest.lists(finding.path)]
    if known:
        record_change(folder, removed=known)


def _move(folder: Path, path: Path) -> bool:
    """Move `path` to the folder `damaged`, keeping files of the same name; whether it existed."""
    if not path.parent.resolve().is_relative_to(folder.resolve()) or not os.path.lexists(path):
        return False
    target = folder / DAMAGED_FOLDER / path.relative_to(folder)
    require_inside(folder, target.parent)
    make_folder(target.parent)
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{path.stem}-{number}{path.suffix}")
    try:
        path.replace(target)
    except OSError as error:
        raise RunError(f"{path} cannot be moved to {target.parent}: {error.strerror}") from error
    return True
