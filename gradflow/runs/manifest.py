"""The list of files that a run consists of, with size and checksum: what is missing is known.

manifest.jsonl holds one line a change, appended and flushed to the disk: a file that was written,
or one that was taken away. What a power cut leaves of a last line is passed over.
"""

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradflow.runs.files import append, write_whole

MANIFEST_FILE = "manifest.jsonl"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file as it was written: its size in bytes and the CRC-32 of its content."""

    size: int
    crc32: int

    def describes(self, content: bytes) -> bool:
        """Whether `content` is what was written."""
        return len(content) == self.size and zlib.crc32(content) == self.crc32


def entry_of(path: Path) -> Entry:
    """The entry of the file at `path` as it is now."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return Entry(size, crc)


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a run says, by path within its folder.

    Fields:
        folder: the run's folder.
        exists: whether there is a manifest; runs recorded before there were any have none.
        files: those that should be there, as they were written. A file that is replaced has two
            entries: it is noted first, so that either content is known whatever comes between.
        gone: those that were taken away.
    """

    folder: Path
    exists: bool
    files: dict[str, tuple[Entry, ...]]
    gone: frozenset[str]

    def knows(self, path: Path) -> bool:
        """Whether the manifest lists `path`."""
        return _name(self.folder, path) in self.files

    def describes(self, path: Path, entry: Entry) -> bool:
        """Whether a file at `path` that is as `entry` says is what was written there."""
        return entry in self.files.get(_name(self.folder, path), ())

    def contradicts(self, path: Path, content: bytes) -> bool:
        """Whether `content` is not what was written at `path`, as far as the manifest knows."""
        entries = self.files.get(_name(self.folder, path), ())
        return bool(entries) and not any(entry.describes(content) for entry in entries)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run in `folder`."""
    files: dict[str, tuple[Entry, ...]] = {}
    gone: set[str] = set()
    lines = _lines(folder / MANIFEST_FILE)
    for line in lines or []:
        for name, entry in _parse(line):
            if entry is None:
                files.pop(name, None)
                gone.add(name)
            else:
                files[name] = (*files.get(name, ()), entry)[-2:]
                gone.discard(name)
    return Manifest(folder, lines is not None, files, frozenset(gone))


def note(folder: Path, written: Iterable[Path] = (), taken_away: Iterable[Path] = ()) -> None:
    """Append to the manifest of `folder` that files were written, and that others are gone.

    Raises `RunError` where that fails.
    """
    lines = [_line(_name(folder, path), entry_of(path)) for path in written]
    lines += [{"file": _name(folder, path), "gone": True} for path in taken_away]
    _append(folder, lines)


def note_instead(folder: Path, path: Path, replaced: Iterable[Path]) -> None:
    """Append to the manifest that the file at `path` counts from now on, and `replaced` do not.

    In one line, so that a power cut leaves either both or neither. Raises `RunError` where that
    fails.
    """
    line = _line(_name(folder, path), entry_of(path))
    _append(folder, [line | {"instead_of": [_name(folder, one) for one in replaced]}])


def note_replacement(folder: Path, path: Path, replacement: Path) -> None:
    """Append to the manifest that `path` is about to become what `replacement` holds."""
    _append(folder, [_line(_name(folder, path), entry_of(replacement))])


def tidy(folder: Path) -> None:
    """Write the manifest of `folder` anew, without what says nothing any more."""
    manifest = read_manifest(folder)
    lines = [_line(name, entry) for name, known in manifest.files.items() for entry in known]
    lines += [{"file": name, "gone": True} for name in manifest.gone if (folder / name).exists()]
    write_whole(folder / MANIFEST_FILE, lambda temporary: _write_text(temporary, _text(lines)))


def _append(folder: Path, lines: list[dict[str, Any]]) -> None:
    manifest = folder / MANIFEST_FILE
    # After a power cut the last line may be half a line: the next one begins on its own.
    begin = "" if _tail(manifest) in (b"", b"\n") else "\n"
    append(manifest, (begin + _text(lines)).encode())


def _line(name: str, entry: Entry) -> dict[str, Any]:
    return {"file": name, "bytes": entry.size, "crc32": entry.crc32}


def _text(lines: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _lines(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 1))
            return file.read()
    except FileNotFoundError:
        return b""


def _parse(line: str) -> list[tuple[str, Entry | None]]:
    """The changes that a line tells of: the files that are as an entry says, or that are gone."""
    try:
        change = json.loads(line)
        names = [change["file"], *change.get("instead_of", [])]
        if not all(isinstance(name, str) for name in names):
            return []
        gone: list[tuple[str, Entry | None]] = [(name, None) for name in names]
        if change.get("gone") is True:
            return gone
        entry = Entry(int(change["bytes"]), int(change["crc32"]))
        return [(names[0], entry), *gone[1:]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
