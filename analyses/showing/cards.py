"""Findings, figures and tables as cards for notebooks."""

from typing import TYPE_CHECKING

from analyses.wording.numbers import number
from gradflow.notebooks import html, pictures

if TYPE_CHECKING:
    from analyses.registry import Outcome
    from analyses.result import Estimate, Figure, Finding, Table

_MOST_ROWS = 12


def finding_card(finding: "Finding") -> str:
    """The card of a finding: verdict, meaning, the interval of its number, and what to do next."""
    first = finding.estimates[0] if finding.estimates else None
    return html.card(
        finding.hypothesis,
        f"<p>{verdict(finding)} {html.escape(finding.meaning)}</p>",
        _interval(first) if first else "",
        html.text(f"{first.name}: {first.words}; {finding.threshold}" if first else "", quiet=True),
        html.text(f"Next: {finding.next_step}" if finding.next_step else ""),
        html.folded("Limits", *(html.text(one, quiet=True) for one in finding.caveats)),
    )


def figure_card(figure: "Figure") -> str:
    """The card of a figure: its title, picture and caption; if drawing fails, it says why."""
    return html.card(figure.title, picture(figure), html.text(figure.caption, quiet=True))


def table_card(table: "Table") -> str:
    """The card of a table: its title and its first rows."""
    columns = [str(name) for name in table.frame.columns]
    rows = [[_cell(one) for one in row] for row in table.frame.head(_MOST_ROWS).to_numpy()]
    more = len(table.frame) - _MOST_ROWS
    return html.card(
        table.title,
        html.table(columns, rows),
        html.text(f"and {more:,} more rows, in `frame`" if more > 0 else "", quiet=True),
    )


def outcome_card(outcome: "Outcome") -> str:
    """The card of an outcome: the answer, a figure and the findings, or why there is none."""
    result = outcome.result
    if result is None:
        reason = outcome.not_applicable or f"This analysis failed: {outcome.failure}"
        return html.card(outcome.question or outcome.title, html.text(reason))
    return html.card(
        outcome.question,
        html.text(result.summary),
        picture(result.figures[0]) if result.figures else "",
        html.listed([finding_line(one) for one in result.findings], 6),
    )


def finding_line(finding: "Finding") -> str:
    """A finding in a line of HTML: its verdict, then what it means."""
    return f"{verdict(finding)} {html.escape(finding.meaning)}"


def verdict(finding: "Finding") -> str:
    """The verdict as an answer to the hypothesis, in HTML; words tell it apart without colour."""
    mark = finding.mark
    said = f"{mark.sign} {finding.verdict.answer}".lstrip()
    return f'<b class="{mark.value}">{said}</b> ({finding.verdict.value})'


def picture(figure: "Figure") -> str:
    """The picture of `figure` as HTML; if drawing fails, a sentence that says why."""
    from analyses.showing.drawing import draw  # noqa: PLC0415 - draws only what is shown

    try:
        drawn = draw(figure)
    except Exception as error:  # a figure that fails must not hide what is around it
        return html.text(f"This figure could not be drawn: {type(error).__name__}: {error}")
    return html.image(drawn.data, drawn.suffix, figure.alt, drawn.width)


def _interval(estimate: "Estimate") -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{number(one)} {estimate.unit}".strip() for one in ends)
    return pictures.interval(*ends, (low, value, high))


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
