"""The list of files that a run consists of, with size and checksum: what is missing is known.

manifest.jsonl holds one line a change, appended and flushed to the disk: files that were written,
and files that were taken away by the same change. A line counts as a whole or not at all: it ends
with a newline and carries its own checksum. What a power cut leaves of a last line is passed over.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.format.files import DAMAGED_FOLDER, append, write_atomically
from gradflow.runs.format.limits import LARGEST_MANIFEST, read_bounded, require_inside

MANIFEST_FILE = "manifest.jsonl"
_CHUNK = 1 << 20
_SUFFIXES = (".parquet", ".pt")


@dataclass(frozen=True)
class FileEntry:
    """A file as it was written: its size in bytes and the CRC-32 of its content."""

    size: int
    crc32: int

    def describes(self, content: bytes) -> bool:
        """Whether `content` is what was written."""
        return len(content) == self.size and zlib.crc32(content) == self.crc32


def entry_of(path: Path) -> FileEntry:
    """The entry of the file at `path` as it is now."""
    size, crc = 0, 0
    with path.open("rb") as file:
        # No more memory than the file is long: setting it aside would outlast reading a small one.
        length = min(_CHUNK, os.fstat(file.fileno()).st_size + 1)
        while chunk := file.read(length):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return FileEntry(size, crc)


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a run says, by path within its folder.

    Fields:
        folder: the run's folder.
        exists: whether there is a manifest; runs recorded before there were any have none.
        files: those that should be there, as they were written. A file that is being replaced has
            two entries, so that either content is known whatever comes between.
        removed: those that were taken away.
        damaged: whether it has a line, other than a torn last one, that was not written so.
    """

    folder: Path
    exists: bool
    files: dict[str, tuple[FileEntry, ...]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    damaged: bool = False

    def lists(self, path: Path) -> bool:
        """Whether the manifest lists `path`."""
        return name_in(self.folder, path) in self.files

    def contradicts(self, path: Path, content: bytes) -> bool:
        """Whether `content` is not what was written at `path`, as far as the manifest knows."""
        entries = self.files.get(name_in(self.folder, path), ())
        return bool(entries) and not any(entry.describes(content) for entry in entries)

    def require_undamaged(self) -> None:
        """Raise `RunError` where the manifest is damaged, and so cannot tell what counts."""
        if self.damaged:
            raise RunError(
                f"{self.folder / MANIFEST_FILE} is damaged, so it is not known which files of the "
                "run count: `python -m gradflow.runs check FOLDER --repair` lists them again"
            )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run in `folder`.

    Raises `RunError` where it cannot be read, is a link out of the folder, or larger than any of
    gradflow's.
    """
    path = folder / MANIFEST_FILE
    try:
        require_inside(folder, path)
        content = read_bounded(path, LARGEST_MANIFEST)
    except FileNotFoundError:
        return Manifest(folder, exists=False)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    files: dict[str, tuple[FileEntry, ...]] = {}
    removed: set[str] = set()
    changes = [_parse(line) for line in content.split(b"\n")[:-1]]
    for change in changes:
        if change is None:
            continue
        files.update(change.written)
        removed -= change.written.keys()
        for name in change.removed:
            files.pop(name, None)
        removed |= change.removed
    damaged = any(change is None for change in changes)
    return Manifest(folder, True, files, frozenset(removed), damaged)


def record_change(folder: Path, written: Iterable[Path] = (), removed: Iterable[Path] = ()) -> None:
    """Append to the manifest of `folder`, as one change, that files were written and others went.

    Raises `RunError` where that fails.
    """
    try:
        entries = {name_in(folder, path): (entry_of(path),) for path in written}
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"what was written to {folder} cannot be read again: {reason}") from error
    names = frozenset(name_in(folder, path) for path in removed)
    _append(folder, _line(_Change(entries, names)))


def write_listed(folder: Path, path: Path, write: Callable[[Path], None]) -> None:
    """Write the file `path` of the run in `folder` whole, and list it.

    A file that replaces one is listed first, with either content: nothing is wrong in between.

    Raises `RunError` where that fails.
    """
    replaced = path.exists()
    write_atomically(path, write, partial(_record_replacement, folder, path) if replaced else None)
    if not replaced:
        record_change(folder, [path])


def shorten_manifest(folder: Path) -> None:
    """Write the manifest of `folder` anew, without what says nothing any more."""
    manifest = read_manifest(folder)
    removed = frozenset(name for name in manifest.removed if (folder / name).exists())
    write_manifest(folder, manifest.files, removed)


def write_manifest(
    folder: Path, files: Mapping[str, tuple[FileEntry, ...]], removed: frozenset[str] = frozenset()
) -> None:
    """Write a manifest that lists `files` and the `removed` ones, in place of any other.

    Raises `RunError` where that fails.
    """
    changes = [_Change({name: entries}, frozenset()) for name, entries in files.items()]
    if removed:
        changes.append(_Change({}, removed))
    text = b"".join(map(_line, changes))
    write_atomically(folder / MANIFEST_FILE, lambda temporary: _write(temporary, text))


def name_in(folder: Path, path: Path) -> str:
    """The name by which the manifest of `folder` lists `path`."""
    return path.relative_to(folder).as_posix()


@dataclass(frozen=True)
class _Change:
    """What a line of the manifest says."""

    written: Mapping[str, tuple[FileEntry, ...]]
    removed: frozenset[str]


def _record_replacement(folder: Path, path: Path, replacement: Path) -> None:
    # What stands there now is said again: the replacement before may never have taken place.
    entries = (entry_of(path), entry_of(replacement))
    _append(folder, _line(_Change({name_in(folder, path): entries}, frozenset())))


def _append(folder: Path, line: bytes) -> None:
    manifest = folder / MANIFEST_FILE
    _cut_torn_line(manifest)
    append(manifest, line)


def _cut_torn_line(path: Path) -> None:
    """Remove what a power cut or a full disk left of a last line, which never counted."""
    try:
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def _line(change: _Change) -> bytes:
    content: dict[str, Any] = {}
    if change.written:
        content["written"] = {
            name: [[entry.size, entry.crc32] for entry in entries]
            for name, entries in change.written.items()
        }
    if change.removed:
        content["gone"] = sorted(change.removed)
    return (json.dumps(content | {"check": _checksum(content)}) + "\n").encode()


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _parse(line: bytes) -> _Change | None:
    """A change, or None for a line that is none."""
    try:
        content = json.loads(line)
        if content.pop("check") != _checksum(content):
            return None
        written = {
            _inner(name): tuple(FileEntry(int(size), int(crc)) for size, crc in entries)
            for name, entries in content.get("written", {}).items()
        }
        return _Change(written, frozenset(map(_inner, content.get("gone", []))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _inner(name: Any) -> str:
    """`name`, which must be that of a table's or of weights within the folder.

    Another, such as that of the list itself or of a whole table, a repair would set aside.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name:
        raise ValueError(f"{name} is outside of the folder")
    if path.suffix not in _SUFFIXES or len(path.parts) > 2 or path.parts[0] == DAMAGED_FOLDER:
        raise ValueError(f"{name} is none that is listed")
    return str(name)
