"""A lock that keeps a second process from writing into the same folder."""

from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from gradflow.errors import RunError
from gradflow.runs.format.limits import require_no_links_out

LOCK_FILE = ".lock"


class FolderLock:
    """Held from its creation until `release`, the end of a `with` block, or the process's end.

    It is a lock of the operating system on an open file, so a killed process leaves no lock behind.
    If the file system has no locks, nothing is locked.

    Raises `RunError` if another writer holds the lock, the folder cannot be written, or a link in
    it leads out of it: files written through the link would land elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        require_no_links_out(folder)
        self._lock = FileLock(folder / LOCK_FILE, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"{folder} is being written by another process: wait until it ends, or stop it"
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
