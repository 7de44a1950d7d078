"""Turns the outcome of one analysis into a section whose texts are final."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from analyses.registry import Outcome
from analyses.result import Finding, Table
from analyses.wording import plural
from reports.figures import draw_figure
from reports.parts import SIGNS, EstimateRow, FindingPart, Section, TablePart
from reports.wording import column_cells, estimate_text

# A table in a report is read, not computed with: the run folder holds the rest.
LONGEST_TABLE = 60


@dataclass(frozen=True)
class Numbering:
    """The next numbers of figures and tables, counted through the whole report."""

    figures: Iterator[int] = field(default_factory=lambda: count(1))
    tables: Iterator[int] = field(default_factory=lambda: count(1))


def anchor_of(place: int) -> str:
    """What links to the section at `place` name; keys of third parties could clash."""
    return f"section-{place}"


def section_of(
    outcome: Outcome, place: int, numbering: Numbering, cite: Callable[[str], str]
) -> Section:
    """The section of `outcome`, the `place`th; `cite` gives the text that cites a source."""
    heading = f"{place}. {outcome.title}"
    anchor = anchor_of(place)
    result = outcome.result
    if result is None:
        notice = _notice(outcome)
        return Section(anchor, heading, outcome.question, notice, "", (), (), (), "", ())
    return Section(
        anchor=anchor,
        heading=heading,
        question=outcome.question,
        notice="",
        summary=result.summary,
        findings=tuple(_finding(finding) for finding in result.findings),
        figures=tuple(
            draw_figure(figure, f"Figure {next(numbering.figures)}") for figure in result.figures
        ),
        tables=tuple(
            table_part(table, f"Table {next(numbering.tables)}") for table in result.tables
        ),
        method=result.method,
        sources=tuple(cite(source) for source in result.sources),
    )


def network_text(finding: Finding) -> str:
    """Which network a finding speaks of."""
    return "all networks" if finding.network is None else finding.network


def table_part(table: Table, label: str, longest: int = LONGEST_TABLE) -> TablePart:
    """`table` as texts, its first `longest` rows; a note tells how many there are."""
    shown = table.frame.head(longest)
    hidden = len(table.frame) - len(shown)
    note = f"The first {longest} of {plural(len(table.frame), 'row')}." if hidden else ""
    if table.frame.empty:
        note = "No rows: there was nothing to list."
    kinds = [shown.iloc[:, place].dtype.kind for place in range(shown.shape[1])]
    columns = [column_cells(shown.iloc[:, place]) for place in range(shown.shape[1])]
    return TablePart(
        label=label,
        title=table.title,
        columns=tuple(str(name) for name in shown.columns),
        numeric=tuple(kind in "iuf" for kind in kinds),
        rows=tuple(zip(*columns, strict=True)),
        note=note,
    )


def _notice(outcome: Outcome) -> str:
    if outcome.failure:
        return f"This section failed: {outcome.failure}"
    return f"Not applicable to this experiment: {outcome.not_applicable}"


def _finding(finding: Finding) -> FindingPart:
    return FindingPart(
        hypothesis=finding.hypothesis,
        network=network_text(finding),
        verdict=finding.verdict,
        sign=SIGNS[finding.verdict],
        meaning=finding.meaning,
        estimates=tuple(
            EstimateRow(estimate.name, estimate_text(estimate), estimate.method)
            for estimate in finding.estimates
        ),
        threshold=finding.threshold,
        contradicted_by=finding.contradicted_by,
        next_step=finding.next_step,
        caveats=finding.caveats,
    )
