"""`gradflow.report`: writes the report of a run from Python, and shows it in a notebook."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.command_line.packages import check_packages
from gradflow.errors import ConfigurationError
from gradflow.findings.answers import Answers, answers_of
from gradflow.findings.sources import Source, keys_of
from gradflow.runs.format.limits import require_valid_path

if TYPE_CHECKING:
    from reports.elements import Document

DEFAULT_FORMATS = "html,pdf"
PAPERS = ("a4", "letter")


@dataclass(frozen=True, repr=False)
class WrittenReport:
    """A report that was written; in a notebook it shows its answer and its first figure.

    Fields:
        files: the path of each format, by its name, e.g. `html`.
        document: the report itself, in words.
        answers: the findings that it reports.
    """

    files: dict[str, Path]
    document: "Document" = field(compare=False)
    answers: Answers = field(compare=False)

    def __repr__(self) -> str:
        files = ", ".join(str(path) for path in self.files.values())
        return f"WrittenReport({self.document.question!r}, {files or 'no files'})"

    def _repr_html_(self) -> str:
        from gradflow.findings.cards import report_card  # noqa: PLC0415 - for notebooks only

        return report_card(self)


def report(
    runs: Source | Answers,
    *,
    formats: str | Collection[str] = DEFAULT_FORMATS,
    out: str | Path | None = None,
    only: str | Collection[str] = (),
    paper: str = "a4",
    length: str | None = None,
    language: str = "en",
) -> WrittenReport:
    """Write the report of recorded runs, as `python -m gradflow.report` does, without printing.

    Example:
        >>> gradflow.report("runs/mine")  # shows the answer in a notebook
        >>> gradflow.report("runs/mine", formats="html,json").files["html"]

    Args:
        runs: a run, an experiment, the folder or name of one, several of these, which are
            compared, or what `analyze` returned.
        formats: html, pdf, md, json: a collection, or a text with commas.
        out: the folder to write into; by default that of the runs.
        only: keys of the analyses to report, such as `health_check`; empty for all.
        paper: the paper of the PDF, a4 or letter.
        length: summary, standard or full; by default standard, and full with `only`.
        language: its code: en, or id for Indonesian.

    Raises `RunError` if there is no run or a damaged one, or if a file cannot be written, and
    `ConfigurationError` if a format, paper, length, language or
    analysis is unknown.
    """
    if paper not in PAPERS:
        raise ConfigurationError(f"the paper {paper!r} is unknown: choose from {', '.join(PAPERS)}")
    if out is not None:
        require_valid_path(Path(out))
    check_packages()
    from reports.building import report_name, report_on, write_report  # noqa: PLC0415
    from reports.document.selection import DEFAULT_LENGTH, parse_length  # noqa: PLC0415
    from reports.formats import parse_formats  # noqa: PLC0415
    from reports.languages.catalogue import catalogue_of  # noqa: PLC0415

    # Before the analyses, which take long.
    wanted = parse_formats(formats if isinstance(formats, str) else ",".join(formats))
    chosen = parse_length(length or ("full" if keys_of(only) else DEFAULT_LENGTH))
    catalogue_of(language)
    answers = answers_of(runs, only)
    folder = answers.experiment.folder if out is None else Path(out)
    made = report_on(
        answers.experiment, answers.outcomes, paper, folder, chosen, keys_of(only), language
    )
    written = write_report(made, wanted, folder, report_name(keys_of(only)))
    return WrittenReport({one.format.name: one.path for one in written}, made.shown, answers)
