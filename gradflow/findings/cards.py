"""Answers and written reports as cards for notebooks."""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.notebooks import html

if TYPE_CHECKING:
    from gradflow.findings.answers import Answers
    from gradflow.findings.reporting import WrittenReport

_SHOWN = 8


def answers_card(answers: "Answers") -> str:
    """The card of all answers: how many of each verdict, the first figure, and the findings."""
    from analyses.showing.cards import finding_line, picture  # noqa: PLC0415 - slow to load

    counts = Counter(one.verdict.value for one in answers.findings)
    said = {"": f"{len(answers)} analyses", **{name: counts[name] for name in sorted(counts)}}
    figures = list(answers.figures.values())
    return html.card(
        f"What {answers.experiment.folder.resolve().name} answers",
        html.facts(said),
        picture(figures[0]) if figures else "",
        html.listed([finding_line(one) for one in answers.findings], _SHOWN),
    )


def report_card(report: "WrittenReport") -> str:
    """The card of a report: its answer, its first figure, and links to its files."""
    from reports.languages.catalogue import catalogue_of  # noqa: PLC0415 - only for a report

    document = report.document
    words = catalogue_of(document.language)
    figure = document.overview_figure
    drawn = figure.picture if figure else None
    sentences = [
        f"{html.escape(one.text)} "
        f"{html.escape(' '.join((words('Claim:'), one.hypothesis, words('Found:'))))} "
        f'<b class="{one.mark.value}">{html.escape(one.signed)}</b>'
        for one in document.answer
    ]
    links = [f"{name}: {_link(path)}" for name, path in report.files.items()]
    return html.card(
        document.question,
        *(html.text(f"{words('Warning:')} {one}") for one in document.warnings),
        html.listed(sentences, len(sentences)),
        html.image(drawn.data, drawn.suffix, figure.alt, drawn.width) if figure and drawn else "",
        html.text(document.verdict_counts, quiet=True),
        html.listed(links, len(links)),
    )


def _link(path: Path) -> str:
    """A link to `path` from the notebook, which stands in the working folder."""
    try:
        relative = Path(os.path.relpath(path)).as_posix()
    except ValueError:  # on another drive
        relative = str(path)
    return f'<a href="{html.address(relative)}" target="_blank">{html.escape(path)}</a>'
