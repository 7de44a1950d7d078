"""A small temporary file system that can be enlarged or made read-only."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self


class CannotMountError(Exception):
    """This machine does not let this process mount file systems."""


class SmallDisk:
    """A tmpfs of `size` bytes, mounted at the new folder `folder` within the context.

    Raises `CannotMountError` if that is not allowed or not possible.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        _call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))

    def enlarge(self, size: int) -> None:
        """Enlarge it to `size` bytes in total."""
        self._remount(f"size={size}")

    def make_read_only(self) -> None:
        """Refuse every change from now on."""
        self._remount("ro")

    def make_writable(self) -> None:
        """Allow changes again."""
        self._remount("rw")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _call("umount", "--lazy", str(self.folder))

    def _remount(self, options: str) -> None:
        _call("mount", "-o", f"remount,{options}", str(self.folder))


def _call(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CannotMountError(f"there is no {command[0]} here") from error
    except subprocess.CalledProcessError as error:
        raise CannotMountError(f"no file system can be mounted: {error.stderr.strip()}") from error
