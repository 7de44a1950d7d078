"""Makes a report of an experiment, and writes it to files in the formats asked for."""

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analyses.registry import run_all
from gradflow.errors import RunError, printable
from gradflow.runs.format.files import make_folder, write_atomically
from gradflow.runs.reading.run import Experiment
from reports.document.builder import build_document
from reports.formats import Format, Report

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Written:
    """A file of a report: in which format, where, of how many bytes, made in how many seconds."""

    format: Format
    path: Path
    size: int
    seconds: float

    def __str__(self) -> str:
        large = self.size >= 100_000
        size = f"{self.size / 1e6:.1f} MB" if large else f"{self.size / 1e3:.1f} kB"
        return f"{printable(str(self.path))} ({size}, {self.seconds:.1f} s)"


def make_report(experiment: Experiment, only: Collection[str] = (), paper: str = "a4") -> Report:
    """Analyse `experiment` and draw its figures.

    Args:
        experiment: a recorded one, or several put together by
        `analyses.comparison.combination.combine`. only: keys of the analyses to run; empty for all.
        paper: of formats with pages, a4 or letter.

    Raises `ConfigurationError` where `only` names an unknown analysis, and `RunError` where a
    table of a run is damaged.
    """
    import matplotlib  # noqa: PLC0415 - slow to load, needed only here

    matplotlib.use("Agg")  # no window is ever opened
    outcomes = run_all(experiment, only)
    return Report(experiment, outcomes, build_document(experiment, outcomes), paper)


def write_report(
    report: Report, formats: Sequence[Format], folder: Path, name: str = "report"
) -> list[Written]:
    """Write `report` into `folder` as files called `name`, each whole; the folder is made.

    Raises `RunError` where a file cannot be written.
    """
    written = []
    for one in formats:
        start = time.perf_counter()
        path = folder / f"{name}.{one.suffix}"
        content = one.render(report)
        try:
            make_folder(folder)
            write_atomically(path, partial(_write, content))
        except RunError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            raise RunError(
                f"the report {path} cannot be written ({reason}): name another folder with --out"
            ) from error
        written.append(Written(one, path, len(content), time.perf_counter() - start))
    return written


def report_name(only: Sequence[str]) -> str:
    """What the files of a report are called: never as the whole one where it is not whole."""
    return "-".join(["report", *(re.sub(r"[^\w-]", "-", key) for key in only)])[:_LONGEST_NAME]


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
