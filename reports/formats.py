"""The formats of a report: name, file suffix, and the function that renders it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from analyses.registry import Outcome
from gradflow.errors import ConfigurationError
from gradflow.runs.reading.run import Experiment
from reports.elements import Document
from reports.languages.catalogue import ENGLISH
from reports.languages.translation import in_language


@dataclass(frozen=True)
class Report:
    """The input of every format: the document in words, and the outcomes with their numbers.

    Fields:
        experiment: the experiment that the report is about.
        outcomes: the outcome of each analysis.
        document: the experiment and the outcomes in words, in English.
        paper: the paper of formats with pages, a4 or letter.
        language: the language in which readers are shown the document.
    """

    experiment: Experiment
    outcomes: tuple[Outcome, ...]
    document: Document
    paper: str = "a4"
    language: str = ENGLISH

    @cached_property
    def shown(self) -> Document:
        """The document in the language of the report."""
        return in_language(self.document, self.language)


@dataclass(frozen=True)
class Format:
    """A format: its `name` in options, the file `suffix`, and `render`, which returns the bytes.

    The same report always gives the same bytes.
    """

    name: str
    suffix: str
    render: Callable[[Report], bytes]


# Renderers are imported only when needed: importing typst alone takes long.
def _html(report: Report) -> bytes:
    from reports.html.renderer import render_html  # noqa: PLC0415

    return render_html(report.shown)


def _pdf(report: Report) -> bytes:
    from reports.pdf.renderer import render_pdf  # noqa: PLC0415

    return render_pdf(report.shown, report.paper)


def _markdown(report: Report) -> bytes:
    from reports.markdown.renderer import render_markdown  # noqa: PLC0415

    return render_markdown(report.shown)


def _json(report: Report) -> bytes:
    from reports.json.renderer import render_json  # noqa: PLC0415

    # For programs: the same in every language.
    return render_json(report.experiment, report.outcomes, report.document)


FORMATS = {
    one.name: one
    for one in (
        Format("html", "html", _html),
        Format("pdf", "pdf", _pdf),
        Format("md", "md", _markdown),
        Format("json", "json", _json),
    )
}


def parse_formats(text: str) -> tuple[Format, ...]:
    """The formats in the comma-separated `text`, without repetitions.

    Raises `ConfigurationError` if `text` names no format or an unknown one.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        found = f"the format {unknown[0]!r} is unknown" if unknown else "no format is named"
        raise ConfigurationError(f"{found}: choose from {', '.join(FORMATS)} with --format")
    return tuple(FORMATS[name] for name in dict.fromkeys(names))
