"""Limits that keep a hostile image file from taking very long to decode.

A decoder reads the metadata before the pixels in many pieces, and may copy all of it with each
piece. It also decodes a progressive image as many times as the file says.
"""

import io
import re
from typing import BinaryIO

# Ordinary files stay far below: a JPEG segment has 64 KiB, a read from a PNG at least 8.
MAX_HEADER_BYTES = 1 << 24
MAX_READS = 1 << 19
# A progressive JPEG usually has ten; files of some cameras have a few more.
MAX_SCANS = 100
# A marker in or after a scan that is neither an escaped byte nor a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START, _END, _SCAN = b"\xff\xd8", 0xD9, 0xDA
_ALONE = {0x01, 0xD8}  # markers not followed by a length


class TooMuchToDecodeError(Exception):
    """A file holds so much besides its pixels that decoding it could take forever."""


class BoundedFile:
    """The open `file`, which may be read at most `MAX_READS` times.

    Until `end_of_header` is called, these reads may return at most `MAX_HEADER_BYTES` bytes.
    Reading the whole rest of the file at once does not count: the file's size limits its time.

    Raises `TooMuchToDecodeError` beyond these limits.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reads = 0
        self._bytes: int | None = 0

    def end_of_header(self) -> None:
        """From now on only the number of reads is limited."""
        self._bytes = None

    def read(self, size: int = -1) -> bytes:
        """Like the method of the file."""
        content = self._file.read(size)
        self._reads += 1
        if self._bytes is not None and size >= 0:
            self._bytes += len(content)
        if self._reads > MAX_READS or (self._bytes or 0) > MAX_HEADER_BYTES:
            raise TooMuchToDecodeError
        return content

    def readline(self, size: int = -1) -> bytes:
        """Like the method of the file."""
        return self._file.readline(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Like the method of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Like the method of the file."""
        return self._file.tell()


def require_few_scans(content: bytes) -> None:
    """Make sure that `content`, if it is a JPEG, has no more than `MAX_SCANS` scans.

    Raises `TooMuchToDecodeError` if it has.
    """
    if not content.startswith(_START):
        return
    at, scans = len(_START), 0
    while found := _MARKER.search(content, at):
        kind, at = found[0][1], found.end()
        if kind == _END:
            return  # the rest does not belong to this picture
        scans += kind == _SCAN
        if scans > MAX_SCANS:
            raise TooMuchToDecodeError
        if kind not in _ALONE:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
