"""Builds the one `Document` that every format lays out: all texts and numbers are decided here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import gradflow
from analyses.registry import Outcome
from analyses.result import Finding
from analyses.wording import listing, plural
from gradflow.runs.reader import Experiment
from gradflow.runs.schema import TABLES
from reports.parts import (
    SIGNS,
    AnswerSentence,
    Section,
    TablePart,
    VerdictRow,
)
from reports.sections import Numbering, anchor_of, network_text, section_of
from reports.setting import (
    configuration_of,
    created_of,
    question_of,
    trained_line,
    warnings_of,
)
from reports.wording import date_text, estimate_text

# The answer opens with what explains the jumps, then with what the gradients do.
IMPORTANCE = (
    "jump_explanation",
    "gradient_profile",
    "batchnorm_recalibration",
    "skip_carry",
    "accuracy_jumps",
    "matched_comparison",
)
LONGEST_ANSWER = 8
SYMBOLS = (
    "N is the batch, C the channels (axis 1), S everything after C; x is a layer's output, or the "
    "gradient of the loss with respect to it; M is the number of its elements. A value that was "
    "not observed is missing, never 0."
)


@dataclass(frozen=True)
class Term:
    """A recorded quantity in the glossary."""

    name: str
    unit: str
    formula: str
    source: str


@dataclass(frozen=True)
class GlossaryPart:
    """The quantities of one or more recorded tables, and what a row of each stands for."""

    heading: str
    rows: tuple[str, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Document:
    """A report, whatever its format; renderers lay it out and word nothing.

    Fields:
        title, question, subtitle: what was asked, of which experiment, when and with what version.
        warnings: what a reader must know first, such as runs that are not complete.
        lead: how many hypotheses were tested, and what became of them.
        answer: the most important findings, one sentence each.
        verdicts: every finding in one row.
        trained: how the networks were trained, in one line.
        sections: one for each outcome, those without a result included.
        configuration: all that the runs say of themselves.
        symbols, glossary: the letters in formulas, and the recorded quantities.
        references: the sources, in order of citation.
        version: of gradflow. created: when the experiment was made; None where unknown.
    """

    title: str
    question: str
    subtitle: str
    warnings: tuple[str, ...]
    lead: str
    answer: tuple[AnswerSentence, ...]
    verdicts: tuple[VerdictRow, ...]
    trained: str
    sections: tuple[Section, ...]
    configuration: tuple[TablePart, ...]
    symbols: str
    glossary: tuple[GlossaryPart, ...]
    references: tuple[str, ...]
    version: str
    created: datetime | None


@dataclass
class _References:
    """The sources cited so far, each once."""

    sources: list[str] = field(default_factory=list)

    def cite(self, source: str) -> str:
        if source not in self.sources:
            self.sources.append(source)
        return f"[{self.sources.index(source) + 1}] {source}"


def build_document(experiment: Experiment, outcomes: Sequence[Outcome]) -> Document:
    """Build the report of `experiment` from what became of its analyses; draws every figure.

    Raises `RunError` where a table of the run is damaged.
    """
    numbering, references = Numbering(), _References()
    placed = list(enumerate(outcomes, start=1))
    sections = tuple(
        section_of(outcome, place, numbering, references.cite) for place, outcome in placed
    )
    placed.sort(key=lambda pair: _importance(pair[1]))
    verdicts = tuple(row for place, outcome in placed for row in _verdict_rows(place, outcome))
    created = created_of(experiment)
    return Document(
        title=f"Gradient flow in {listing(experiment.networks)}",
        question=question_of(experiment),
        subtitle=_subtitle(experiment, created),
        warnings=warnings_of(experiment),
        lead=_lead(verdicts),
        answer=_answer(placed),
        verdicts=verdicts,
        trained=trained_line(experiment),
        sections=sections,
        configuration=configuration_of(experiment, numbering),
        symbols=SYMBOLS,
        glossary=_glossary(),
        references=tuple(
            f"[{place}] {source}" for place, source in enumerate(references.sources, start=1)
        ),
        version=gradflow.__version__,
        created=created,
    )


def _importance(outcome: Outcome) -> int:
    return IMPORTANCE.index(outcome.key) if outcome.key in IMPORTANCE else len(IMPORTANCE)


def _subtitle(experiment: Experiment, created: datetime | None) -> str:
    runs = plural(len(experiment.runs), "run")
    when = date_text(created) if created else "at an unknown date"
    folder = experiment.folder.resolve().name
    return f"{folder}: {runs}, recorded {when}; gradflow {gradflow.__version__}"


def _verdict_rows(place: int, outcome: Outcome) -> Iterable[VerdictRow]:
    for finding in _findings(outcome):
        first = finding.estimates[0] if finding.estimates else None
        yield VerdictRow(
            hypothesis=finding.hypothesis,
            network=network_text(finding),
            verdict=finding.verdict,
            sign=SIGNS[finding.verdict],
            measure=first.name if first else "",
            number=estimate_text(first) if first else "no number",
            section=anchor_of(place),
        )


def _answer(placed: Sequence[tuple[int, Outcome]]) -> tuple[AnswerSentence, ...]:
    """The first finding of each network from each of the most important analyses."""
    important = [pair for pair in placed if pair[1].key in IMPORTANCE and _findings(pair[1])]
    sentences = [
        AnswerSentence(
            text=finding.meaning,
            hypothesis=finding.hypothesis,
            verdict=finding.verdict,
            sign=SIGNS[finding.verdict],
            section=anchor_of(place),
        )
        for place, outcome in important or placed
        for finding in _first_of_each_network(_findings(outcome))
    ]
    return tuple({sentence.text: sentence for sentence in sentences}.values())[:LONGEST_ANSWER]


def _findings(outcome: Outcome) -> tuple[Finding, ...]:
    return outcome.result.findings if outcome.result else ()


def _first_of_each_network(findings: Iterable[Finding]) -> Iterable[Finding]:
    first: dict[str | None, Finding] = {}
    for finding in findings:
        first.setdefault(finding.network, finding)
    return first.values()


def _lead(verdicts: Sequence[VerdictRow]) -> str:
    if not verdicts:
        return "No hypothesis could be tested with what was recorded; the sections below say why."
    counts = [(sum(row.verdict is verdict for row in verdicts), verdict) for verdict in SIGNS]
    outcome = listing([f"{count} {verdict}" for count, verdict in counts if count])
    return f"{plural(len(verdicts), 'statement')} tested: {outcome}."


def _glossary() -> tuple[GlossaryPart, ...]:
    # Tables of the same columns, such as activations and gradients, are explained once.
    groups: dict[tuple[Term, ...], list[str]] = {}
    for table in TABLES.values():
        terms = tuple(Term(q.name, q.unit, q.formula, q.source) for q in table.columns)
        groups.setdefault(terms, []).append(table.name)
    return tuple(
        GlossaryPart(
            heading=listing(names),
            rows=tuple(f"A row of {name} is {TABLES[name].row}." for name in names),
            terms=terms,
        )
        for terms, names in groups.items()
    )
