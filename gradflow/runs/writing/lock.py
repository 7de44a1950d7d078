"""Keeps a second process from writing into a folder that one is writing into already."""

from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from gradflow.errors import RunError
from gradflow.runs.format.limits import require_no_links_out

LOCK_FILE = ".lock"


class FolderLock:
    """Held from when it is made until `release` or the end of a `with` block, or of the process.

    The lock is the operating system's, on an open file: one left behind by a process that was
    killed holds nobody up. Where the file system has no locks, nothing is held.

    Raises `RunError` where another writer holds it, the folder cannot be written, or a link in it
    leads out of it: who writes there would write elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        require_no_links_out(folder)
        self._lock = FileLock(folder / LOCK_FILE, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"{folder} is being written by another process: wait until it has ended, or end it"
            ) from None
        except NotImplementedError:
            return
        except OSError as error:
            raise RunError(f"the folder {folder} cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Let others write."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
