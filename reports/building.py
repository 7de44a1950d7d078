"""Analyses an experiment and writes its report to files, one for each format."""

import re
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analyses.registry import Outcome, run_all
from analyses.result import Length
from analyses.showing.drawing_ahead import DrawingAhead
from analyses.showing.working_ahead import WorkAhead
from gradflow.errors import RunError, printable
from gradflow.runs.format.files import make_folder, write_atomically
from gradflow.runs.reading.run import Experiment
from reports.document.builder import build_document
from reports.document.explorer_ahead import ExplorerAhead
from reports.document.selection import figures_shown
from reports.formats import Format, Report
from reports.languages.catalogue import ENGLISH, catalogue_of

_LONGEST_NAME = 100
SUMMARY = "-summary"  # in the name of its files


@dataclass(frozen=True)
class Written:
    """A written report file: its format, path, size in bytes, and the seconds it took."""

    format: Format
    path: Path
    size: int
    seconds: float

    def __str__(self) -> str:
        large = self.size >= 100_000
        size = f"{self.size / 1e6:.1f} MB" if large else f"{self.size / 1e3:.1f} kB"
        return f"{printable(str(self.path))} ({size}, {self.seconds:.1f} s)"


def make_report(
    experiment: Experiment,
    only: Collection[str] = (),
    paper: str = "a4",
    folder: Path | None = None,
    *,
    processes: int | None = 0,
    length: Length = Length.FULL,
    language: str = ENGLISH,
) -> Report:
    """Analyse `experiment` and draw its figures.

    Args:
        experiment: a recorded experiment, or several combined by
            `analyses.comparison.combination.combine`.
        only: keys of the analyses to run; empty runs all.
        paper: the paper of formats with pages, a4 or letter.
        folder: where the report is to be written, for its links; by default in the experiment.
        length: how much of it is shown; figures that are not shown are not drawn.
        processes: how many processes draw figures and build the explorer beside this one, which
            they are forked from; None for as many as processors are free.
        language: the code of the report's language.

    Raises `ConfigurationError` if `only` names an unknown analysis or `language` has no catalogue,
    and `RunError` if a table of a run is damaged.
    """
    catalogue_of(language)  # an unknown one ends here, before the analyses
    import matplotlib  # noqa: PLC0415 - slow to load, needed only here

    matplotlib.use("Agg")  # draws without opening windows
    with WorkAhead(processes) as ahead:
        drawing = DrawingAhead(ahead)
        explorer = ExplorerAhead(experiment, ahead)

        def prepare(outcome: Outcome) -> None:
            if length > Length.SUMMARY:
                explorer.prepare()
            drawing.add(figures_shown(outcome, length))

        outcomes = run_all(experiment, only, prepare)
        longer = _longer_page(folder or experiment.folder, only, length)
        document = build_document(
            experiment, outcomes, folder, drawing.picture, length, longer, explorer.element
        )
    return Report(experiment, outcomes, document, paper, language)


def report_on(
    experiment: Experiment,
    outcomes: tuple[Outcome, ...],
    paper: str = "a4",
    folder: Path | None = None,
    length: Length = Length.FULL,
    only: Collection[str] = (),
    language: str = ENGLISH,
) -> Report:
    """The report on `outcomes` of analyses that ran already; draws their figures.

    Unlike `make_report` it leaves matplotlib's backend as it is: a notebook has one of its own.
    """
    longer = _longer_page(folder or experiment.folder, only, length)
    document = build_document(experiment, outcomes, folder, length=length, longer=longer)
    return Report(experiment, outcomes, document, paper, language)


def write_report(
    report: Report, formats: Sequence[Format], folder: Path, name: str = "report"
) -> list[Written]:
    """Write `report` into `folder`, one file called `name` for each format.

    A summary gets files of its own, so that the longer page stays beside it. Creates the folder if
    needed. A file is either written completely or not at all.
    Raises `RunError` if a file cannot be written.
    """
    written = []
    # Laying out a PDF leaves Python free to render the others.
    with ThreadPoolExecutor(max_workers=max(len(formats), 1)) as threads:
        rendered = [threads.submit(_render, one, report) for one in formats]
        for one, rendering in zip(formats, rendered, strict=True):
            content, seconds = rendering.result()
            start = time.perf_counter()
            # Programs find everything in the JSON, whatever the length.
            is_summary = report.document.length is Length.SUMMARY and one.name != "json"
            path = folder / f"{name}{SUMMARY if is_summary else ''}.{one.suffix}"
            try:
                make_folder(folder)
                write_atomically(path, partial(_write_bytes, content))
            except RunError as error:
                reason = getattr(error.__cause__, "strerror", None) or error
                raise RunError(
                    f"the report {path} cannot be written ({reason}): name another folder with "
                    "--out"
                ) from error
            seconds += time.perf_counter() - start
            written.append(Written(one, path, len(content), seconds))
    return written


def report_name(only: Sequence[str]) -> str:
    """The file name of a report: `report`, followed by the analyses in `only`."""
    return "-".join(["report", *(re.sub(r"[^\w-]", "-", key) for key in only)])[:_LONGEST_NAME]


def _longer_page(folder: Path, only: Collection[str], length: Length) -> str:
    """The longer page beside a summary in `folder`, as a relative path; "" if there is none."""
    name = f"{report_name(tuple(only))}.html"
    return name if length is Length.SUMMARY and (folder / name).is_file() else ""


def _render(one: Format, report: Report) -> tuple[bytes, float]:
    """The content of the file, and the seconds that it took."""
    start = time.perf_counter()
    content = one.render(report)
    return content, time.perf_counter() - start


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)
