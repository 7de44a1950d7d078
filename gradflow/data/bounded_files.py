"""Keeps an image file from taking longer to decode than its pixels do.

Decoders read what stands before the pixels piece by piece, and put some of it together anew with
every piece; they go over a progressive image as often as the file says.
"""

import io
import re
from typing import BinaryIO

# What an honest file stays far below: a note of JPEG has 64 KiB, a piece of PNG at least 8.
MAX_HEADER_BYTES = 1 << 24
MAX_READS = 1 << 19
# Ten are usual; an archive of a camera may show one picture in some more.
MAX_SCANS = 100
# A marker within or behind a scan: neither a byte that was escaped, nor a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START, _END, _SCAN = b"\xff\xd8", 0xD9, 0xDA
_ALONE = {0x01, 0xD8}  # markers without a length


class TooMuchToDecodeError(Exception):
    """A file holds so much beside its pixels that reading it would not end."""


class BoundedFile:
    """The open `file`, to be read in at most `MAX_READS` pieces.

    Until `end_of_header` is called they may have `MAX_HEADER_BYTES` bytes together; reading the
    rest of the file in one piece does not count, as it takes no longer than the file is long.

    Raises `TooMuchToDecodeError` where there are more.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reads = 0
        self._bytes: int | None = 0

    def end_of_header(self) -> None:
        """From now on only the pieces count."""
        self._bytes = None

    def read(self, size: int = -1) -> bytes:
        """As that of the file."""
        content = self._file.read(size)
        self._reads += 1
        if self._bytes is not None and size >= 0:
            self._bytes += len(content)
        if self._reads > MAX_READS or (self._bytes or 0) > MAX_HEADER_BYTES:
            raise TooMuchToDecodeError
        return content

    def readline(self, size: int = -1) -> bytes:
        """As that of the file."""
        return self._file.readline(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As that of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As that of the file."""
        return self._file.tell()


def require_few_scans(content: bytes) -> None:
    """Make sure that `content`, if it is a JPEG, goes over its picture no more than usual.

    Raises `TooMuchToDecodeError` where it does.
    """
    if not content.startswith(_START):
        return
    at, scans = len(_START), 0
    while found := _MARKER.search(content, at):
        kind, at = found[0][1], found.end()
        if kind == _END:
            return  # what follows is no part of this picture
        scans += kind == _SCAN
        if scans > MAX_SCANS:
            raise TooMuchToDecodeError
        if kind not in _ALONE:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
