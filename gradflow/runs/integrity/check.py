"""Checks every file of a run or an experiment: does it exist, and is it what was written?"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from gradflow.errors import RunError
from gradflow.runs.format.description import NewerSchemaError, read_description
from gradflow.runs.format.files import (
    EXPERIMENT_FILE,
    RUN_FILE,
    STATE_FILE,
    STATE_PATTERN,
    TEMPORARY_PATTERN,
    matching_files,
)
from gradflow.runs.format.limits import (
    OutsideError,
    TooLargeError,
    is_inside,
    require_inside,
    require_memory,
    require_regular_file,
    require_valid_path,
)
from gradflow.runs.format.manifest import (
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    entry_of,
    name_in,
    read_manifest,
)
from gradflow.runs.format.parts import Part, leftover_files, parse_part_name
from gradflow.runs.integrity.gaps import Gap, gaps_of
from gradflow.runs.reading.part import require_readable
from gradflow.runs.reading.state_file import read_state, state_path
from gradflow.runs.writing.rebuilding import run_files

_ATTEMPTS = 3


@dataclass(frozen=True)
class FileFinding:
    """A file that is not as expected, with its kind and the reason.

    `damaged`: recorded data is lost. `left over`: an interruption left a file that does not count.
    `unlisted`: an interruption left a complete file that is not yet in the manifest. The last two
    do no harm.
    """

    path: Path
    kind: Literal["damaged", "left over", "unlisted"]
    reason: str


@dataclass(frozen=True)
class RunCheck:
    """The result of checking one run.

    Fields:
        folder: the run's folder.
        description: the content of `run.json`; empty if it cannot be read.
        manifest: the list of the run's files.
        findings: the files that are not as expected.
        gaps: steps or epochs that a table lacks although other tables have them.
        files: the number of the run's files.
        size: the bytes of all files.
        rows: the number of rows in the readable parts.
    """

    folder: Path
    description: dict[str, Any] = field(repr=False)
    manifest: Manifest = field(repr=False)
    findings: tuple[FileFinding, ...]
    gaps: tuple[Gap, ...]
    files: int
    size: int
    rows: int

    @property
    def set_aside(self) -> int:
        """How many files earlier repairs set aside."""
        entries = self.description.get("set_aside")
        return len(entries) if isinstance(entries, list) else 0

    def of_kind(self, kind: str) -> list[FileFinding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run, even one that has lost its description."""
    return (folder / RUN_FILE).exists() or bool(read_manifest(folder).files)


def runs_in(folder: Path) -> tuple[list[Path], list[FileFinding]]:
    """The run folders in `folder`, a run or an experiment, and findings outside of these runs.

    Raises `RunError` if `folder` holds neither, a newer schema, or a link out of it.
    """
    require_valid_path(folder)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    if not (folder / EXPERIMENT_FILE).exists():
        if not is_run(folder):
            read_description(folder, RUN_FILE)  # raises, because there is no run
        return [folder], []
    inside = sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and is_inside(folder, path) and is_run(path)
    )
    findings = [*_temporary_files(folder, TEMPORARY_PATTERN)]
    try:
        description = read_description(folder, EXPERIMENT_FILE)
    except NewerSchemaError:
        raise
    except RunError as error:
        findings.append(FileFinding(folder / EXPERIMENT_FILE, "damaged", _reason(error)))
        return inside, findings
    names = description.get("runs")
    listed = set(map(str, names)) if isinstance(names, list) else set()
    for path in (folder / name for name in sorted(listed)):
        if path.is_dir():
            require_inside(folder, path)
    return [path for path in inside if path.name in listed], findings


def check_run(folder: Path) -> RunCheck:
    """Check every file of the run in `folder`.

    Raises `RunError` if the run has a newer schema or an invalid name.
    """
    require_valid_path(folder)
    for _ in range(_ATTEMPTS):
        manifest = read_manifest(folder)
        checked = _check(folder, manifest)
        # A writer may have merged files during the check.
        if read_manifest(folder) == manifest:
            break
    return checked


def _check(folder: Path, manifest: Manifest) -> RunCheck:
    description, findings = _description(folder)
    findings += _manifest_findings(manifest, description)
    # A damaged manifest says nothing about the files that it does not list.
    left = [] if manifest.damaged else leftover_files(manifest)
    present = {name_in(folder, path): path for path in run_files(folder) if path not in left}
    for name in sorted(present.keys() | manifest.files.keys()):
        reason = _why_damaged(folder, folder / name, manifest.files.get(name, ()))
        if reason is not None:
            findings.append(FileFinding(folder / name, "damaged", reason))
        elif manifest.exists and not manifest.damaged and name not in manifest.files:
            findings.append(
                FileFinding(folder / name, "unlisted", "written just before an interruption")
            )
    findings += [
        FileFinding(path, "left over", "another file holds its rows, or they were removed")
        for path in left
    ]
    findings += [
        *_state_findings(folder),
        *_temporary_files(folder, TEMPORARY_PATTERN, f"*/{TEMPORARY_PATTERN}"),
    ]
    bad = {finding.path for finding in findings if finding.kind == "damaged"}
    whole = [path for path in present.values() if path not in bad]
    return RunCheck(
        folder,
        description,
        manifest,
        tuple(findings),
        gaps_of(whole, finished=description.get("status") == "complete"),
        files=len(present),
        size=sum(path.stat().st_size for path in present.values() if path.exists()),
        rows=sum(_rows(path) for path in whole),
    )


def _description(folder: Path) -> tuple[dict[str, Any], list[FileFinding]]:
    try:
        return read_description(folder, RUN_FILE), []
    except NewerSchemaError:
        raise
    except RunError as error:
        return {}, [FileFinding(folder / RUN_FILE, "damaged", _reason(error))]


def _manifest_findings(manifest: Manifest, description: dict[str, Any]) -> Iterator[FileFinding]:
    path = manifest.folder / MANIFEST_FILE
    if manifest.damaged:
        yield FileFinding(path, "damaged", "some lines are not as they were written")
    elif not manifest.exists and description.get("schema_version", 2) >= 2:
        yield FileFinding(path, "damaged", "missing")


def _why_damaged(folder: Path, path: Path, entries: tuple[FileEntry, ...]) -> str | None:
    """Why the file at `path` is damaged; None if it is not."""
    try:
        require_inside(folder, path)
        require_regular_file(path)
        size = path.stat().st_size
        # The size is checked before reading: a sparse file may claim any size.
        if not size or (entries and size not in (entry.size for entry in entries)):
            return _difference(size, entries)
        require_memory("it", size)
        if entries and entry_of(path) not in entries:
            return _difference(size, entries)
    except OutsideError:
        return "it lies outside the run's folder"
    except RunError as error:
        return str(error) if isinstance(error, TooLargeError) else "it is not a file"
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return "missing" if missing else f"cannot be read: {error.strerror or error}"
    return _why_unreadable(folder, path, whole=not entries)


def _difference(size: int, entries: tuple[FileEntry, ...]) -> str:
    """How a file of `size` bytes differs from `entries`, the contents that were written."""
    sizes = {entry.size for entry in entries}
    if not size:
        return "empty"
    if size in sizes:
        return "its checksum differs: bits have changed"
    return f"it has {size} bytes, but {max(sizes)} were written"


def _why_unreadable(folder: Path, path: Path, *, whole: bool) -> str | None:
    """Why a file cannot be read; None if it can. Reads all of it only if `whole`."""
    try:
        if path.suffix == ".parquet":
            part = parse_part_name(path) or Part(0, 0, path)
            require_readable(folder, part, whole=whole)
        elif whole:  # weights are a zip archive with checksums of its members
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return "its checksum differs: bits have changed"
    except TooLargeError as error:
        return str(error)
    except Exception as error:  # damage on purpose makes Arrow and zip raise anything
        return f"cannot be read: {_first_line(error)}"
    return None


def _state_findings(folder: Path) -> Iterator[FileFinding]:
    kept: Path | None = None
    try:
        kept = state_path(folder)
        read_state(folder)
    except RunError as error:
        yield FileFinding(folder / STATE_FILE, "damaged", _reason(error))
        return
    for path in matching_files(folder, STATE_PATTERN):
        if path != kept:
            yield FileFinding(path, "left over", "a state that no training resumes from")


def _temporary_files(folder: Path, *patterns: str) -> Iterator[FileFinding]:
    for path in matching_files(folder, *patterns):
        yield FileFinding(
            path, "left over", "a file that was being written when an interruption came"
        )


def _rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows) if path.suffix == ".parquet" else 0


def _reason(error: RunError) -> str:
    cause = error.__cause__
    if isinstance(cause, FileNotFoundError):
        return "missing"
    return f"cannot be read: {_first_line(cause or error)}"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
