"""Limits for run folders that we did not write: paths, sizes, counts.

People read and resume runs that they did not record. A run must not lead out of its folder or fill
the memory, so its names, links and sizes are checked before they are used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradflow.errors import ConfigurationError, GradflowError, RunError

# In bytes. A description holds a configuration and names, a manifest one line per file.
LARGEST_DESCRIPTION = 1 << 24
LARGEST_MANIFEST = 1 << 26
# In characters. The first is for names of networks and classes, which a report repeats many times,
# the second for any text in a table. File names and paths are shorter than that, even if escaped.
LONGEST_NAME = 1 << 10
LONGEST_TEXT = 1 << 14
LIMIT_VARIABLE = "GRADFLOW_LARGEST_TABLE"
_DEFAULT_GIB = 4.0
_SHOWN = 200  # characters of a name that is too long


class OutsideError(RunError):
    """A path leads out of the folder that it belongs to."""


class TooLargeError(RunError):
    """A table would take more memory than allowed; the message says how to allow more."""


def memory_limit() -> int:
    """Bytes of memory that a table or weights may take: 4 GiB, or the environment's value.

    Raises `ConfigurationError` if the environment variable is not a positive number.
    """
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        gib = float(given) if given else _DEFAULT_GIB
        if gib > 0:
            return int(gib * 2**30)
    except (ValueError, OverflowError):
        pass
    raise ConfigurationError(
        f"the environment variable {LIMIT_VARIABLE} must be a number of GiB, not {given!r}"
    )


def require_memory(what: str, needed: int) -> None:
    """Make sure that `what`, which needs `needed` bytes, stays within `memory_limit`.

    Raises `TooLargeError` if it does not.
    """
    limit = memory_limit()
    if needed > limit:
        raise TooLargeError(
            f"{what} would take {needed / 2**30:,.2f} GiB of memory, more than the "
            f"limit of {limit / 2**30:,.2f} GiB: if you trust the run, allow more with "
            f"the environment variable {LIMIT_VARIABLE}, in GiB"
        )


def require_valid_path(path: Path) -> None:
    """Make sure that `path` could exist: no NUL in it, and not too long.

    Raises `RunError` if it could not, if reading it is not permitted, or if its name is not valid
    UTF-8: Arrow cannot open such a file, and an undamaged one would be reported as damaged.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise RunError(
            f"{str(path)[:_SHOWN]} cannot be opened: its name is not valid UTF-8; rename it"
        ) from error
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{str(path)[:_SHOWN]} cannot be opened: {reason}") from error


def require_inside(folder: Path, path: Path) -> None:
    """Make sure that `path` lies inside `folder` after its links are followed.

    Raises `OutsideError` if it does not.
    """
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links; an invalid name
        inside = False
    if not inside:
        raise OutsideError(
            f"{path} leads out of {folder}: replace the link with a copy of its target, "
            "or leave this run out"
        )


def require_no_links_out(folder: Path) -> None:
    """Make sure that no link directly in `folder` leads out of it.

    Raises `OutsideError` if one does: a file written through it would land elsewhere.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink():
            require_inside(folder, path)


def require_regular_file(path: Path) -> None:
    """Make sure that `path`, if it exists, is a regular file: reading a pipe would never end.

    Raises `RunError` if it is not.
    """
    if path.exists() and not path.is_file():
        raise RunError(f"{path} cannot be read: it is not a file")


def is_inside(folder: Path, path: Path) -> bool:
    """Whether `path` lies inside `folder` after its links are followed."""
    try:
        require_inside(folder, path)
    except OutsideError:
        return False
    return True


def is_file_inside(folder: Path, path: Path) -> bool:
    """Whether `path` is a file inside `folder` after its links are followed."""
    return is_inside(folder, path) and path.is_file()


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of the file `path`.

    Raises `RunError` if it has more than `limit` bytes or is not a file, `OSError` if it cannot be
    read.
    """
    require_regular_file(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise RunError(f"{path} cannot be read: it has more than {limit:,} bytes")
    return content


@contextmanager
def restoring(what: str) -> Iterator[None]:
    """Turns any error while `what`, read from a file, is restored into a `RunError`."""
    try:
        yield
    except GradflowError:
        raise
    except Exception as error:  # a file that we did not write may hold anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{what} cannot be used ({reason}): it belongs to another network, or was changed"
        ) from error
