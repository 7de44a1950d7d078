"""Writes a CSV file with a line for each number."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

from gradflow.errors import ConfigurationError
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink, SinkRun

HEADER = ("step", "name", "value")


class CSV(Sink):
    """Writes the columns step, name and value, for spreadsheets and other programs.

        gradflow.sinks.CSV("mine.csv", quantities="parameter_*", every="epoch")

    Takes also what `Sink` takes.

    Args:
        path: the file, which is replaced, or added to if the run goes on after an interruption; by
            default `quantities.csv` within the run folder.
    """

    kind: ClassVar[str] = "CSV"
    takes_histograms: ClassVar[bool] = False

    def __init__(self, path: str | Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._path = None if path is None else Path(path)
        self.place = "" if path is None else str(path)
        self._file: IO[str] | None = None

    def open(self, run: SinkRun) -> None:
        """Begin the file; of one that exists, only the steps before those to come are kept."""
        path = self._path or run.folder / "quantities.csv"
        self.place = str(path)
        self.where = {"path": run.relative(path)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = list(_lines_before(run.first_step, path)) if run.first_step else []
            self._file = path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror or error}"
            ) from error
        self._writer = csv.writer(self._file)
        self._writer.writerows([HEADER, *kept])

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Write a line for each number, with all its digits."""
        self._writer.writerows((step, name, repr(value)) for name, value in scalars.items())

    def flush(self) -> None:
        """Hand what waits to the operating system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _lines_before(step: int, path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if len(line) == len(HEADER)]
    return [line for line in lines if line[0].isdigit() and int(line[0]) < step]
