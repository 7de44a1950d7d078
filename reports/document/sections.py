"""Builds a section of the report from the outcome of one analysis."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from analyses.registry import Outcome
from analyses.result import LOOK_ELSEWHERE, AnalysisResult, Finding, Table
from analyses.showing.drawing import draw_or_explain
from analyses.wording.phrases import plural
from analyses.wording.translatable import Joined, Numeral, Said, message
from reports.document.figures import PictureOf, draw_figure
from reports.document.wording import column_texts, estimate_text
from reports.elements import (
    ALL_NETWORKS,
    Claim,
    EstimateRow,
    FigureElement,
    FindingElement,
    Section,
    TableElement,
    VerdictLine,
)

IN_THE_ANSWER = "As the answer says."
# In rows. A table in a report is for reading; the run folder holds all rows.
LONGEST_TABLE = 60


@dataclass(frozen=True)
class Numbering:
    """The next numbers of figures and tables, counted through the whole report."""

    figures: Iterator[int] = field(default_factory=lambda: count(1))
    tables: Iterator[int] = field(default_factory=lambda: count(1))


def figure_label(numbering: Numbering) -> str:
    """The label of the next figure."""
    return Said("Figure {number}", number=f"{next(numbering.figures)}")


def table_label(numbering: Numbering) -> str:
    """The label of the next table."""
    return Said("Table {number}", number=f"{next(numbering.tables)}")


def section_anchor(section: int) -> str:
    """The link target of a section. Keys of analyses by others could clash, so it is a number."""
    return f"section-{section}"


def claim_anchor(section: int, claim: int) -> str:
    """The link target of a claim in a section; both numbers count from 1."""
    return f"{section_anchor(section)}-claim-{claim}"


def build_section(
    outcome: Outcome,
    number: int,
    numbering: Numbering,
    cite: Callable[[str], str],
    command: str,
    picture_of: PictureOf = draw_or_explain,
    anchors: Mapping[str, str] | None = None,
) -> Section:
    """Build the section of `outcome`.

    Args:
        outcome: the outcome of the analysis.
        number: the number of the section, from 1.
        numbering: gives the numbers of figures and tables.
        cite: returns the text that cites a source.
        command: the command that makes the section again.
        picture_of: draws its figures.
        anchors: the link target of each topic, and that of the section as ""; by default they are
            counted.
    """
    anchors = anchors or {}
    result = outcome.result
    empty = AnalysisResult("", (), (), (), "", ())
    evidence = _Evidence(result or empty, numbering, picture_of)
    claims = tuple(
        _claim(
            group,
            anchors.get(group[0].topic, claim_anchor(number, claim)),
            evidence,
            (result or empty).together,
        )
        for claim, group in enumerate(group_by_topic((result or empty).findings), start=1)
    )
    caveats, next_steps = (
        _shared(one.caveats for one in claims),
        _shared(one.next_steps for one in claims),
    )
    return Section(
        anchor=anchors.get("", section_anchor(number)),
        heading=Joined((f"{number}.", message(outcome.title))),
        question=outcome.question,
        background=outcome.background,
        notice="" if result else _notice(outcome),
        # With claims, it would say what these say.
        summary="" if claims else (result or empty).summary,
        claims=_with_each_once(claims, caveats, next_steps),
        caveats=caveats,
        next_steps=next_steps,
        figures=evidence.figures_left(),
        tables=evidence.tables_left(),
        method=(result or empty).method,
        sources=tuple(cite(source) for source in (result or empty).sources),
        command=command if result else "",
    )


def without_what_was_told(
    sections: Sequence[Section], told: Collection[str], to_do: Collection[str] = ()
) -> tuple[Section, ...]:
    """`sections`, in which findings whose meaning was `told` refer to the answer.

    What is `to_do` the first page has said, and they do not say again.
    """

    def unless_told(meaning: str) -> str:
        said = bool(meaning) and any(meaning in text for text in told)
        return IN_THE_ANSWER if said else meaning

    def shortened(one: FindingElement) -> FindingElement:
        meaning = unless_told(one.meaning)
        # The answer names the network; what stands in its place does not.
        names = one.names_network and (meaning is one.meaning or one.line.network == ALL_NETWORKS)
        return replace(one, meaning=meaning, names_network=names)

    def unsaid(steps: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(step for step in steps if step not in to_do)

    return tuple(
        replace(
            section,
            next_steps=unsaid(section.next_steps),
            claims=tuple(
                replace(
                    claim,
                    next_steps=unsaid(claim.next_steps),
                    findings=tuple(map(shortened, claim.findings)),
                    together=unless_told(claim.together),
                )
                for claim in section.claims
            ),
        )
        for section in sections
    )


def group_by_topic(findings: Iterable[Finding]) -> list[tuple[Finding, ...]]:
    """The findings grouped by topic, in the order in which the topics first appear."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.topic, []).append(finding)
    return [tuple(group) for group in groups.values()]


def statement_of(group: tuple[Finding, ...]) -> str:
    """One sentence that fits all findings of a topic: their statement or hypothesis."""
    return group[0].statement if len(group) > 1 and group[0].statement else group[0].hypothesis


def verdict_line(finding: Finding) -> VerdictLine:
    """The verdict of `finding` with its first estimate."""
    first = finding.estimates[0] if finding.estimates else None
    return VerdictLine(
        network=message(ALL_NETWORKS) if finding.network is None else finding.network,
        hypothesis=finding.hypothesis,
        verdict=finding.verdict,
        sign=finding.mark.sign,
        word=finding.verdict.answer,
        measure=first.name if first else "",
        number=estimate_text(first) if first else Said("no number"),
        mark=finding.mark,
    )


def table_element(table: Table, label: str, longest: int = LONGEST_TABLE) -> TableElement:
    """The first `longest` rows of `table` as texts; a note gives the total number of rows."""
    shown = table.frame.head(longest)
    hidden = len(table.frame) - len(shown)
    note = ""
    if hidden:
        shares = {"count": Numeral(f"{longest}"), "rows": plural(len(table.frame), "row")}
        note = Said("The first {count} of {rows}.", **shares)
    if table.frame.empty:
        note = message("No rows: there was nothing to list.")
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
    """The figures and tables of one analysis; each is numbered and placed once."""

    def __init__(self, result: AnalysisResult, numbering: Numbering, picture_of: PictureOf) -> None:
        self._figures = {figure.key: figure for figure in result.figures}
        self._tables = {table.key: table for table in result.tables}
        self._numbering = numbering
        self._picture_of = picture_of
        # A table may have the same key as the figure that it belongs to, so labels are separate.
        self._drawn: dict[str, str] = {}
        self._listed: dict[str, str] = {}

    def figures_of(self, keys: Iterable[str]) -> tuple[FigureElement, ...]:
        """Draw the figures with these `keys` that have not been placed yet."""
        parts = []
        for key in keys:
            if key in self._figures and key not in self._drawn:
                self._drawn[key] = figure_label(self._numbering)
                parts.append(draw_figure(self._figures[key], self._drawn[key], self._picture_of))
        return tuple(parts)

    def tables_of(self, keys: Iterable[str]) -> tuple[TableElement, ...]:
        """The tables with these `keys` that have not been placed yet."""
        parts = []
        for key in keys:
            if key in self._tables and key not in self._listed:
                self._listed[key] = table_label(self._numbering)
                parts.append(table_element(self._tables[key], self._listed[key]))
        return tuple(parts)

    def labels_of(self, keys: Sequence[str]) -> tuple[str, ...]:
        """The labels of the figures and tables with these `keys` that have been placed already."""
        return tuple(
            labels[key] for labels in (self._drawn, self._listed) for key in keys if key in labels
        )

    def figures_left(self) -> tuple[FigureElement, ...]:
        """The figures that belong to no claim."""
        return self.figures_of(self._figures)

    def tables_left(self) -> tuple[TableElement, ...]:
        """The tables that belong to no claim."""
        return self.tables_of(self._tables)


def _claim(
    group: tuple[Finding, ...], anchor: str, evidence: _Evidence, together: Mapping[str, str]
) -> Claim:
    agree = len(group) > 1 and len({finding.verdict for finding in group}) == 1
    keys = list(dict.fromkeys(key for finding in group for key in finding.evidence))
    return Claim(
        anchor=anchor,
        heading=statement_of(group),
        findings=tuple(_finding(finding) for finding in group),
        threshold=_each_once(finding.threshold for finding in group),
        contradicted_by=_each_once(finding.contradicted_by for finding in group),
        # A condition that is not there leaves nothing to be done about it.
        next_steps=_each_once(
            finding.next_step for finding in group if finding.next_step != LOOK_ELSEWHERE
        ),
        caveats=_each_once(caveat for finding in group for caveat in finding.caveats),
        shown_before=evidence.labels_of(keys),
        figures=evidence.figures_of(keys),
        tables=evidence.tables_of(keys),
        together=together.get(group[0].topic, "") if agree else "",
    )


def _shared(texts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The texts that several claims have, each once."""
    counts = Counter(text for own in texts for text in dict.fromkeys(own))
    return tuple(text for text, count in counts.items() if count > 1)


def _with_each_once(
    claims: Sequence[Claim], caveats: tuple[str, ...], next_steps: tuple[str, ...]
) -> tuple[Claim, ...]:
    """`claims` without what the section says for several of them, and each rule told once."""
    first_with: dict[tuple[str, ...], str] = {}
    told: list[Claim] = []
    for claim in claims:
        rule_of = first_with.setdefault(claim.threshold, claim.heading) if claim.threshold else ""
        repeated = bool(claim.threshold) and rule_of != claim.heading
        told.append(
            replace(
                claim,
                threshold=() if repeated else claim.threshold,
                contradicted_by=_unsaid(claim.contradicted_by, told),
                rule_of=rule_of if repeated else "",
                caveats=tuple(one for one in claim.caveats if one not in caveats),
                next_steps=tuple(one for one in claim.next_steps if one not in next_steps),
            )
        )
    return tuple(told)


def _unsaid(texts: tuple[str, ...], told: Sequence[Claim]) -> tuple[str, ...]:
    return tuple(one for one in texts if not any(one in claim.contradicted_by for claim in told))


def _finding(finding: Finding) -> FindingElement:
    about = finding.network
    return FindingElement(
        line=verdict_line(finding),
        meaning=finding.meaning,
        estimates=tuple(
            EstimateRow(estimate.name, estimate_text(estimate), estimate.method)
            for estimate in finding.estimates
        ),
        names_network=about is None or finding.meaning.startswith(f"In {about} "),
    )


def _each_once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _notice(outcome: Outcome) -> str:
    if outcome.failure:
        return Said("This section failed: {reason}", reason=outcome.failure)
    return Said("Not asked: {reason}", reason=message(outcome.not_applicable))
