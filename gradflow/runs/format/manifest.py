"""The list of a run's files with sizes and checksums, to notice missing or changed files.

manifest.jsonl holds one line per change: the files that it wrote and the files that it removed.
Each line is appended and flushed to the disk. It counts only if it is complete: it ends with a
newline and carries its own checksum. An incomplete last line, left by a power cut, is ignored.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.format.files import DAMAGED_FOLDER, append, write_atomically
from gradflow.runs.format.limits import LARGEST_MANIFEST, read_bounded, require_inside

MANIFEST_FILE = "manifest.jsonl"
_CHUNK = 1 << 20
# Each table that is read asks for the manifest of its run; it changes only while a run is written.
_KEPT_MANIFESTS = 64
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
        # Allocating a whole chunk would take longer than reading a small file.
        length = min(_CHUNK, os.fstat(file.fileno()).st_size + 1)
        while chunk := file.read(length):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return FileEntry(size, crc)


@dataclass(frozen=True)
class Manifest:
    """The content of a run's manifest, by path within the run's folder.

    Fields:
        folder: the run's folder.
        exists: whether there is a manifest; runs of schema version 1 have none.
        files: the files that should exist, as they were written. A file that is being replaced has
            two entries, the old and the new content, so that both are valid after an interruption.
        removed: the files that were removed.
        damaged: whether a line is not as it was written; an incomplete last line does not count.
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
        """Whether the manifest lists `path` with another content than `content`."""
        entries = self.files.get(name_in(self.folder, path), ())
        return bool(entries) and not any(entry.describes(content) for entry in entries)

    def require_undamaged(self) -> None:
        """Raise `RunError` if the manifest is damaged, and so cannot tell which files count."""
        if self.damaged:
            raise RunError(
                f"{self.folder / MANIFEST_FILE} is damaged, so it is not known which files of the "
                "run count: `python -m gradflow.runs check FOLDER --repair` lists them again"
            )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run in `folder`.

    Raises `RunError` if it cannot be read, is a link out of the folder, or is too large.
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
    changes = _changes_in(content)
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
    """Append one change to the manifest of `folder`: the files `written` and `removed`.

    Raises `RunError` if that fails.
    """
    try:
        entries = {name_in(folder, path): (entry_of(path),) for path in written}
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"what was written to {folder} cannot be read again: {reason}") from error
    names = frozenset(name_in(folder, path) for path in removed)
    _append(folder, _line(_Change(entries, names)))


def write_listed(folder: Path, path: Path, write: Callable[[Path], None]) -> None:
    """Write the file `path` of the run in `folder` atomically, and list it in the manifest.

    If the file exists already, the manifest lists the old and the new content before the file is
    replaced, so that neither counts as damaged after an interruption.

    Raises `RunError` if that fails.
    """
    replaced = path.exists()
    write_atomically(path, write, partial(_record_replacement, folder, path) if replaced else None)
    if not replaced:
        record_change(folder, [path])


def shorten_manifest(folder: Path) -> None:
    """Rewrite the manifest of `folder` without lines that no longer matter."""
    manifest = read_manifest(folder)
    removed = frozenset(name for name in manifest.removed if (folder / name).exists())
    write_manifest(folder, manifest.files, removed)


def write_manifest(
    folder: Path, files: Mapping[str, tuple[FileEntry, ...]], removed: frozenset[str] = frozenset()
) -> None:
    """Write a manifest that lists `files` and the `removed` ones; it replaces an existing one.

    Raises `RunError` if that fails.
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
    """One line of the manifest."""

    written: Mapping[str, tuple[FileEntry, ...]]
    removed: frozenset[str]


def _record_replacement(folder: Path, path: Path, replacement: Path) -> None:
    # The present content is listed again: the previous replacement may never have happened.
    entries = (entry_of(path), entry_of(replacement))
    _append(folder, _line(_Change({name_in(folder, path): entries}, frozenset())))


def _append(folder: Path, line: bytes) -> None:
    manifest = folder / MANIFEST_FILE
    _cut_torn_line(manifest)
    append(manifest, line)


def _cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, left by a power cut or a full disk. It never counted."""
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


@lru_cache(maxsize=_KEPT_MANIFESTS)
def _changes_in(content: bytes) -> tuple[_Change | None, ...]:
    """The changes in the lines of a manifest; a line that has no end yet does not count."""
    return tuple(_parse(line) for line in content.split(b"\n")[:-1])


def _parse(line: bytes) -> _Change | None:
    """The change in `line`; None if the line is damaged."""
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
    """`name`, checked to be the path of a part of a table or of weights inside the folder.

    Other names are refused, e.g. that of the manifest or of a whole table, because a repair might
    set such a file aside.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name:
        raise ValueError(f"{name} is outside of the folder")
    if path.suffix not in _SUFFIXES or len(path.parts) > 2 or path.parts[0] == DAMAGED_FOLDER:
        raise ValueError(f"{name} is not a file that a manifest lists")
    return str(name)
