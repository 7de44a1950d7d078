"""Turns the outcome of one analysis into a section whose texts are final."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Finding, Table
from analyses.wording.phrases import plural
from reports.document.figures import draw_figure
from reports.document.wording import column_texts, estimate_text
from reports.elements import (
    SIGNS,
    Claim,
    EstimateRow,
    FigureElement,
    FindingElement,
    Section,
    TableElement,
    VerdictLine,
)

# A table in a report is read, not computed with: the run folder holds the rest.
LONGEST_TABLE = 60


@dataclass(frozen=True)
class Numbering:
    """The next numbers of figures and tables, counted through the whole report."""

    figures: Iterator[int] = field(default_factory=lambda: count(1))
    tables: Iterator[int] = field(default_factory=lambda: count(1))


def section_anchor(section: int) -> str:
    """What links to the section at `place` name; keys of third parties could clash."""
    return f"section-{section}"


def claim_anchor(section: int, claim: int) -> str:
    """What links to the `claim`th claim of the section at `place` name; both count from 1."""
    return f"{section_anchor(section)}-claim-{claim}"


def build_section(
    outcome: Outcome,
    number: int,
    numbering: Numbering,
    cite: Callable[[str], str],
    command: str,
) -> Section:
    """The section of `outcome`, the `place`th.

    Args:
        outcome: what became of the analysis.
        place: counts from 1.
        numbering: gives figures and tables their numbers.
        cite: gives the text that cites a source.
        command: what makes the section again.
    """
    result = outcome.result
    empty = AnalysisResult("", (), (), (), "", ())
    evidence = _Evidence(result or empty, numbering)
    return Section(
        anchor=section_anchor(number),
        heading=f"{number}. {outcome.title}",
        question=outcome.question,
        background=outcome.background,
        notice="" if result else _notice(outcome),
        summary=(result or empty).summary,
        claims=tuple(
            _claim(group, claim_anchor(number, claim), evidence)
            for claim, group in enumerate(group_by_topic((result or empty).findings), start=1)
        ),
        figures=evidence.figures_left(),
        tables=evidence.tables_left(),
        method=(result or empty).method,
        sources=tuple(cite(source) for source in (result or empty).sources),
        command=command if result else "",
    )


def group_by_topic(findings: Iterable[Finding]) -> list[tuple[Finding, ...]]:
    """The findings on each hypothesis, whatever their network, in the order of the first ones."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.topic, []).append(finding)
    return [tuple(group) for group in groups.values()]


def statement_of(group: tuple[Finding, ...]) -> str:
    """What the findings of one topic are about, in one sentence that fits them all."""
    return group[0].statement if len(group) > 1 and group[0].statement else group[0].hypothesis


def verdict_line(finding: Finding) -> VerdictLine:
    """The verdict of `finding` with its first estimate."""
    first = finding.estimates[0] if finding.estimates else None
    return VerdictLine(
        network="all networks" if finding.network is None else finding.network,
        hypothesis=finding.hypothesis,
        verdict=finding.verdict,
        sign=SIGNS[finding.verdict],
        measure=first.name if first else "",
        number=estimate_text(first) if first else "no number",
    )


def table_element(table: Table, label: str, longest: int = LONGEST_TABLE) -> TableElement:
    """`table` as texts, its first `longest` rows; a note tells how many there are."""
    shown = table.frame.head(longest)
    hidden = len(table.frame) - len(shown)
    note = f"The first {longest} of {plural(len(table.frame), 'row')}." if hidden else ""
    if table.frame.empty:
        note = "No rows: there was nothing to list."
    kinds = [shown.iloc[:, place].dtype.kind for place in range(shown.shape[1])]
    columns = [column_texts(shown.iloc[:, place]) for place in range(shown.shape[1])]
    return TableElement(
        label=label,
        title=table.title,
        columns=tuple(str(name) for name in shown.columns),
        numeric=tuple(kind in "iuf" for kind in kinds),
        rows=tuple(zip(*columns, strict=True)),
        note=note,
    )


class _Evidence:
    """The figures and tables of one analysis, each given out once, numbered as it is placed."""

    def __init__(self, result: AnalysisResult, numbering: Numbering) -> None:
        self._figures = {figure.key: figure for figure in result.figures}
        self._tables = {table.key: table for table in result.tables}
        self._numbering = numbering
        # A table may bear the key of the figure that it stands behind.
        self._drawn: dict[str, str] = {}
        self._listed: dict[str, str] = {}

    def figures_of(self, keys: Iterable[str]) -> tuple[FigureElement, ...]:
        """The figures named in `keys` that have not been placed yet, drawn."""
        parts = []
        for key in keys:
            if key in self._figures and key not in self._drawn:
                self._drawn[key] = f"Figure {next(self._numbering.figures)}"
                parts.append(draw_figure(self._figures[key], self._drawn[key]))
        return tuple(parts)

    def tables_of(self, keys: Iterable[str]) -> tuple[TableElement, ...]:
        """The tables named in `keys` that have not been placed yet."""
        parts = []
        for key in keys:
            if key in self._tables and key not in self._listed:
                self._listed[key] = f"Table {next(self._numbering.tables)}"
                parts.append(table_element(self._tables[key], self._listed[key]))
        return tuple(parts)

    def labels_of(self, keys: Sequence[str]) -> tuple[str, ...]:
        """The labels of what is named in `keys` and stands in the document already."""
        return tuple(
            labels[key] for labels in (self._drawn, self._listed) for key in keys if key in labels
        )

    def figures_left(self) -> tuple[FigureElement, ...]:
        """The figures that no claim has placed."""
        return self.figures_of(self._figures)

    def tables_left(self) -> tuple[TableElement, ...]:
        """The tables that no claim has placed."""
        return self.tables_of(self._tables)


def _claim(group: tuple[Finding, ...], anchor: str, evidence: _Evidence) -> Claim:
    keys = list(dict.fromkeys(key for finding in group for key in finding.evidence))
    return Claim(
        anchor=anchor,
        heading=statement_of(group),
        findings=tuple(_finding(finding) for finding in group),
        threshold=_each_once(finding.threshold for finding in group),
        contradicted_by=_each_once(finding.contradicted_by for finding in group),
        next_steps=_each_once(finding.next_step for finding in group),
        caveats=_each_once(caveat for finding in group for caveat in finding.caveats),
        shown_before=evidence.labels_of(keys),
        figures=evidence.figures_of(keys),
        tables=evidence.tables_of(keys),
    )


def _finding(finding: Finding) -> FindingElement:
    return FindingElement(
        line=verdict_line(finding),
        meaning=finding.meaning,
        estimates=tuple(
            EstimateRow(estimate.name, estimate_text(estimate), estimate.method)
            for estimate in finding.estimates
        ),
    )


def _each_once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _notice(outcome: Outcome) -> str:
    if outcome.failure:
        return f"This section failed: {outcome.failure}"
    return f"Not applicable to this experiment: {outcome.not_applicable}"
