"""A writer whose failure does not end what it records: it says so, and writes no more."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.writing.run import RunWriter


class LenientWriter(RunWriter):
    """Passes everything on to `writer` until it fails, as on a full disk.

    `on_failure` is called with the error. If it returns, nothing more is written, except the run's
    status at its end, if that is possible again. If it raises, this writer goes on as if it were
    `writer` itself.
    """

    def __init__(self, writer: RunWriter, on_failure: Callable[[Exception], None]) -> None:
        self.folder = writer.folder
        self._writer = writer
        self._on_failure = on_failure
        self._has_failed = False

    @property
    def description(self) -> Mapping[str, Any]:
        """The entries of `run.json`."""
        return self._writer.description

    def describe(self, **entries: Any) -> None:
        """Set further entries of `run.json`."""
        self._try(lambda: self._writer.describe(**entries))

    def write_layers(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the table of layers, one row per layer in order of execution."""
        self._try(lambda: self._writer.write_layers(columns))

    def append(
        self, name: str, columns: Mapping[str, Any], first_step: int, last_step: int
    ) -> None:
        """Write the rows of steps `first_step` to `last_step` of table `name` as one part."""
        self._try(lambda: self._writer.append(name, columns, first_step, last_step))

    def append_all(
        self, tables: dict[str, Mapping[str, Any]], first_step: int, last_step: int
    ) -> None:
        """Write the rows of steps `first_step` to `last_step` of each of `tables` as one part."""
        self._try(lambda: self._writer.append_all(tables, first_step, last_step))
        tables.clear()  # what could not be written is lost

    def close(self, status: str) -> None:
        """Record how the run ended, as failed if something could not be written."""
        self._try(lambda: self._writer.close(status))
        if self._has_failed:
            with suppress(RunError, OSError):
                self._writer.close("failed")

    def release(self) -> None:
        """Release the lock, and leave the status unchanged."""
        self._writer.release()

    def _try(self, write: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            write()
        except (RunError, OSError) as error:
            self._on_failure(error)
            self._has_failed = True
