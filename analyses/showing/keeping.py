"""Keeps texts that are slow to make in the user's cache folder, where another report finds them.

A text that cannot be kept or read is made again: this is never an error.
"""

import os
import sys
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

from gradflow.errors import RunError
from gradflow.runs.format.files import write_atomically


def read_kept(name: str) -> str | None:
    """The text that was kept as `name`; None if there is none, or it is damaged or not ours."""
    try:
        path = _folder() / name
        with path.open("rb") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
                return None  # scripts of a page must not come from another user
            checksum, _, content = file.read().partition(b"\n")
    except (OSError, RuntimeError):
        return None
    if checksum.decode("ascii", "replace") != sha256(content).hexdigest():
        return None
    return content.decode()


def keep(name: str, text: str) -> None:
    """Keep `text` as `name`, if the folder can be written."""
    content = text.encode()
    line = f"{sha256(content).hexdigest()}\n".encode()
    with suppress(OSError, RuntimeError, RunError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(folder / name, partial(_write, line + content))


def _folder() -> Path:
    """The folder `gradflow` where this system keeps what programs can make again."""
    named = os.environ.get("XDG_CACHE_HOME")
    if not named and sys.platform == "win32":
        named = os.environ.get("LOCALAPPDATA")
    if named and Path(named).is_absolute():
        return Path(named) / "gradflow"
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return home / "gradflow"


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
