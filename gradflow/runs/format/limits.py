"""What a run folder from elsewhere may not do: reach out of itself, or fill the memory.

A run is read and gone on with by people who did not record it. Its names, links and sizes are
therefore looked at before anything is read or written by them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradflow.errors import ConfigurationError, GradflowError, RunError

# In bytes. A description holds a configuration and names; a manifest a line a file.
LARGEST_DESCRIPTION = 1 << 24
LARGEST_MANIFEST = 1 << 26
# In letters: of a network or class, which a report repeats many times; of any text in a table. A
# name that no file can have is as long as the first, in escapes, and one of a path as the second.
LONGEST_NAME = 1 << 10
LONGEST_TEXT = 1 << 14
LIMIT_VARIABLE = "GRADFLOW_LARGEST_TABLE"
_DEFAULT_GIB = 4.0
_SHOWN = 200  # letters of a name that is too long


class OutsideError(RunError):
    """A path leads out of the folder that it should lie in."""


class TooLargeError(RunError):
    """A table would take more memory than one may; says how to allow it."""


def memory_limit() -> int:
    """Bytes of memory that a table, or weights, may take: 4 GiB, or what the environment says.

    Raises `ConfigurationError` where the environment variable is no positive number.
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
    """Make sure that `what`, of `needed` bytes, is no larger than a table, or weights, may be.

    Raises `TooLargeError` where it is.
    """
    limit = memory_limit()
    if needed > limit:
        raise TooLargeError(
            f"{what} would take {needed / 2**30:,.2f} GiB of memory, more than the "
            f"{limit / 2**30:,.2f} that a file of a run may: if you trust the run, allow more with "
            f"the environment variable {LIMIT_VARIABLE}, in GiB"
        )


def require_valid_path(path: Path) -> None:
    """Make sure that something may be at `path`: not with a NUL in it, or longer than names are.

    Raises `RunError` where nothing can, or where it is not allowed to look; where its name is not
    text in UTF-8: Arrow reads no such file, and sound ones would be taken for damaged.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise RunError(
            f"{str(path)[:_SHOWN]} cannot be opened: its name is not text in UTF-8; rename it"
        ) from error
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{str(path)[:_SHOWN]} cannot be opened: {reason}") from error


def require_inside(folder: Path, path: Path) -> None:
    """Make sure that `path` is a file or folder within `folder`, its links followed.

    Raises `OutsideError` where it is not.
    """
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a ring of links; a name that no file can have
        inside = False
    if not inside:
        raise OutsideError(
            f"{path} leads out of {folder}: put a copy of what it leads to in its place, "
            "or do without this run"
        )


def require_no_links_out(folder: Path) -> None:
    """Make sure that nothing directly in `folder` is a link that leads out of it.

    Raises `OutsideError` where something is: who writes there would write elsewhere.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink():
            require_inside(folder, path)


def require_regular_file(path: Path) -> None:
    """Make sure that what is at `path`, if anything, is a file: a pipe would never end.

    Raises `RunError` where it is not.
    """
    if path.exists() and not path.is_file():
        raise RunError(f"{path} cannot be read: it is no file")


def is_inside(folder: Path, path: Path) -> bool:
    """Whether `path` is within `folder`, its links followed."""
    try:
        require_inside(folder, path)
    except OutsideError:
        return False
    return True


def is_file_inside(folder: Path, path: Path) -> bool:
    """Whether `path` is a file, and within `folder`, its links followed."""
    return is_inside(folder, path) and path.is_file()


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of the file `path`.

    Raises `RunError` where it has more than `limit` bytes or is no file, `OSError` where it cannot
    be read.
    """
    require_regular_file(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise RunError(f"{path} cannot be read: it has more than {limit:,} bytes")
    return content


@contextmanager
def restoring(what: str) -> Iterator[None]:
    """Turns what goes wrong as `what`, read from a file, is put into place into a `RunError`."""
    try:
        yield
    except GradflowError:
        raise
    except Exception as error:  # a file from elsewhere may hold anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{what} cannot be used ({reason}): it is of another network, or not what was written"
        ) from error
