"""The formats of a report: what each is called, its files' suffix, and what makes it."""

from collections.abc import Callable
from dataclasses import dataclass

from analyses.registry import Outcome
from gradflow.errors import ConfigurationError
from gradflow.runs.reading.run import Experiment
from reports.elements import Document


@dataclass(frozen=True)
class Report:
    """What a format may draw on: a document for readers, and what it was made from, with numbers.

    Fields:
        experiment: what is reported on.
        outcomes: of its analyses.
        document: both in words.
        paper: that of the pages, where there are pages: a4 or letter.
    """

    experiment: Experiment
    outcomes: tuple[Outcome, ...]
    document: Document
    paper: str = "a4"


@dataclass(frozen=True)
class Format:
    """A way to write a report: `name` in options, `suffix` of the file, `render` makes its bytes.

    The same report gives the same bytes.
    """

    name: str
    suffix: str
    render: Callable[[Report], bytes]


# What makes a format is loaded when it is asked for: typst alone takes long.
def _html(report: Report) -> bytes:
    from reports.html.renderer import render_html  # noqa: PLC0415

    return render_html(report.document)


def _pdf(report: Report) -> bytes:
    from reports.pdf.renderer import render_pdf  # noqa: PLC0415

    return render_pdf(report.document, report.paper)


def _markdown(report: Report) -> bytes:
    from reports.markdown.renderer import render_markdown  # noqa: PLC0415

    return render_markdown(report.document)


def _json(report: Report) -> bytes:
    from reports.json.renderer import render_json  # noqa: PLC0415

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
    """The formats named in `text`, with commas between them, each once.

    Raises `ConfigurationError` where there is none, or one is unknown.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        found = f"the format {unknown[0]!r} is unknown" if unknown else "no format is named"
        raise ConfigurationError(f"{found}: choose from {', '.join(FORMATS)} with --format")
    return tuple(FORMATS[name] for name in dict.fromkeys(names))
