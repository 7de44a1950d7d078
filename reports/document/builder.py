"""Builds the `Document` that all formats render, with every text and number of the report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import gradflow
from analyses.health.conditions import CONDITIONS
from analyses.registry import Outcome
from analyses.result import Finding, Length, Verdict
from analyses.showing.drawing import draw_or_explain
from analyses.wording.phrases import listing, plural
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Experiment
from reports.document.destinations import destinations_of
from reports.document.figures import PictureOf, draw_figure
from reports.document.methods import methods_of
from reports.document.primer import PRIMER
from reports.document.sections import (
    Numbering,
    build_section,
    claim_anchor,
    group_by_topic,
    statement_of,
    verdict_line,
)
from reports.document.selection import OVERVIEW, sections_of, unanswered
from reports.document.summary import (
    configuration_of,
    created_of,
    fuller_text,
    question_of,
    section_command,
    title_of,
    warnings_of,
)
from reports.document.wording import date_text
from reports.elements import (
    SIGNS,
    AnswerSentence,
    Card,
    Document,
    FigureElement,
    GlossaryElement,
    Term,
    VerdictGroup,
)
from reports.explorer.builder import build_explorer

# The findings on the first page, most important first: analysis, and start of their topic.
HEADLINE_TOPICS = (
    ("what_changed", "difference"),
    ("gradient_profile", "vanish"),
    ("jump_explanation", "explanation"),
    ("skip_carry", "skips-carry"),
    ("matched_comparison", "higher-accuracy"),
    ("batchnorm_recalibration", "stale-statistics"),
    ("jump_explanation", "association"),
    ("accuracy_jumps", "jumps"),
    ("gradient_profile", "explode"),
)
# Found by the health check, these spoil a training whatever else is true of it: a report that has
# one opens with it. What another analysis tells is in the list above.
SPOILING = {key for key, one in CONDITIONS.items() if one.spoils and not one.told_elsewhere}
MOST_SENTENCES = 3
SYMBOLS = (
    "N is the batch, C the channels (axis 1), S everything after C; x is a layer's output, or the "
    "gradient of the loss with respect to it; M is the number of its elements. A value that was "
    "not observed is missing, never 0."
)


@dataclass
class _References:
    """The sources cited so far, each once."""

    sources: list[str] = field(default_factory=list)

    def cite(self, source: str) -> str:
        if source not in self.sources:
            self.sources.append(source)
        return f"[{self.sources.index(source) + 1}] {source}"


def build_document(
    experiment: Experiment,
    outcomes: Sequence[Outcome],
    folder: Path | None = None,
    picture_of: PictureOf = draw_or_explain,
    length: Length = Length.FULL,
) -> Document:
    """Build the report of `experiment` from the outcomes of its analyses.

    `picture_of` draws its figures, those that a report of `length` holds. Links to local files are
    as seen from `folder`, by default that of the experiment.

    Raises `RunError` if a table of the run is damaged.
    """
    numbering, references = Numbering(), _References()
    # First: meanwhile other processes may draw figures.
    explorer = build_explorer(experiment) if length > Length.SUMMARY else None
    overview_figure = _overview_figure(outcomes, numbering, picture_of)
    numbered = list(enumerate(sections_of(outcomes, length), start=1))
    sections = tuple(
        build_section(
            outcome,
            number,
            numbering,
            references.cite,
            section_command(experiment, outcome.key),
            picture_of,
        )
        for number, outcome in numbered
    )
    anchors = _anchors(numbered)
    headings = {
        outcome.key: section.heading
        for (_, outcome), section in zip(numbered, sections, strict=True)
    }
    by_analysis = {
        one.key: (one.title, list(_topics(one, anchors))) for one in outcomes if one.key != OVERVIEW
    }
    topics = [topic for _, own in by_analysis.values() for topic in own]
    created = created_of(experiment)
    return Document(
        title=title_of(experiment),
        question=question_of(experiment),
        subtitle=_subtitle(experiment, created),
        warnings=warnings_of(experiment),
        verdict_counts=_verdict_counts(topics),
        answer=tuple(_sentence(topic) for topic in _headlines(topics)[:MOST_SENTENCES]),
        cards=tuple(_card(topic) for topic in _headlines(topics)),
        overview_figure=overview_figure,
        verdicts=tuple(_card(topic) for topic in topics),
        sections=sections,
        explorer=explorer,
        methods=methods_of(experiment),
        configuration=configuration_of(experiment, numbering),
        symbols=SYMBOLS,
        glossary=_glossary(),
        references=tuple(
            f"[{place}] {source}" for place, source in enumerate(references.sources, start=1)
        ),
        version=gradflow.__version__,
        created=created,
        primer=PRIMER,
        destinations=destinations_of(experiment, folder or experiment.folder),
        length=length,
        verdicts_by_analysis=tuple(
            VerdictGroup(headings.get(key, title), tuple(map(_card, own)))
            for key, (title, own) in by_analysis.items()
            if own
        ),
        unanswered=unanswered(outcomes),
        fuller=fuller_text(experiment, length),
    )


@dataclass(frozen=True)
class _Topic:
    """The findings of one analysis on one hypothesis, and the anchor of their claim."""

    analysis: str
    findings: tuple[Finding, ...]
    anchor: str
    common_sentence: str


# The key of an analysis and a topic of it.
_TopicKey = tuple[str, str]


def _anchors(numbered: Sequence[tuple[int, Outcome]]) -> dict[_TopicKey, str]:
    """The link target of each topic that has a claim in the report."""
    return {
        (outcome.key, group[0].topic): claim_anchor(number, claim)
        for number, outcome in numbered
        for claim, group in enumerate(
            group_by_topic(outcome.result.findings) if outcome.result else [], start=1
        )
    }


def _topics(outcome: Outcome, anchors: Mapping[_TopicKey, str]) -> Iterable[_Topic]:
    for group in group_by_topic(outcome.result.findings) if outcome.result else []:
        topic = group[0].topic
        common_sentence = outcome.result.together.get(topic, "") if outcome.result else ""
        yield _Topic(outcome.key, group, anchors.get((outcome.key, topic), ""), common_sentence)


def _headlines(topics: Sequence[_Topic]) -> list[_Topic]:
    """The topics of the first page: what spoils a training, then the headline topics.

    If none of these was tested, they are all topics.
    """
    found = [
        topic
        for topic in topics
        if topic.analysis == "health_check"
        and topic.findings[0].topic in SPOILING
        and _holds(topic)
    ]
    found.sort(key=_is_effect)  # what comes first in a chain is told first
    named = [
        topic
        for key, name in HEADLINE_TOPICS
        for topic in topics
        # A topic that compares networks ends in the names of the networks.
        if topic.analysis == key and topic.findings[0].topic.startswith(name)
    ]
    # Of gradients that explode it is the better answer that they do than that they do not vanish.
    vanish, explode = (
        [topic for topic in named if topic.findings[0].topic.startswith(word)]
        for word in ("vanish", "explode")
    )
    if vanish and explode and _holds(explode[0]) and not _holds(vanish[0]):
        first, second = named.index(vanish[0]), named.index(explode[0])
        named[first], named[second] = named[second], named[first]
    return [*found, *(named or (one for one in topics if one not in found))][: len(HEADLINE_TOPICS)]


def _is_effect(topic: _Topic) -> bool:
    """Whether something else that was found has brought it about, in every network that has it."""
    ill = [one for one in topic.findings if one.verdict is Verdict.SUPPORTED]
    return all(one.effect_of for one in ill)


def _holds(topic: _Topic) -> bool:
    """Whether the hypothesis is supported for some network."""
    return any(finding.verdict is Verdict.SUPPORTED for finding in topic.findings)


def _overview_figure(
    outcomes: Sequence[Outcome], numbering: Numbering, picture_of: PictureOf
) -> FigureElement | None:
    results = [outcome.result for outcome in outcomes if outcome.key == OVERVIEW]
    figures = [figure for result in results if result for figure in result.figures]
    if not figures:
        return None
    return draw_figure(figures[0], f"Figure {next(numbering.figures)}", picture_of)


def _card(topic: _Topic) -> Card:
    lines = tuple(verdict_line(finding) for finding in topic.findings)
    return Card(statement_of(topic.findings), lines, topic.anchor)


def _sentence(topic: _Topic) -> AnswerSentence:
    finding = topic.findings[0]
    agree = len({one.verdict for one in topic.findings}) == 1
    return AnswerSentence(
        text=topic.common_sentence or " ".join(one.meaning for one in topic.findings),
        # If the verdicts differ, the hypothesis names the network of the verdict given.
        hypothesis=statement_of(topic.findings) if agree else finding.hypothesis,
        verdict=finding.verdict,
        sign=SIGNS[finding.verdict],
        anchor=topic.anchor,
    )


def _subtitle(experiment: Experiment, created: datetime | None) -> str:
    runs = plural(len(experiment.runs), "run")
    when = date_text(created) if created else "at an unknown date"
    folders = listing([part.folder.resolve().name for part in experiment.members or (experiment,)])
    return f"{folders}: {runs}, recorded {when}; gradflow {gradflow.__version__}"


def _verdict_counts(topics: Sequence[_Topic]) -> str:
    findings = [finding for topic in topics for finding in topic.findings]
    if not findings:
        return "No hypothesis could be tested with what was recorded; the sections below say why."
    counts = [(sum(one.verdict is verdict for one in findings), verdict) for verdict in SIGNS]
    outcome = listing([f"{count} {verdict}" for count, verdict in counts if count])
    return f"{plural(len(findings), 'statement')} tested: {outcome}."


def _glossary() -> tuple[GlossaryElement, ...]:
    # Tables with the same columns, e.g. activations and gradients, are explained once.
    groups: dict[tuple[Term, ...], list[str]] = {}
    for table in TABLES.values():
        terms = tuple(Term(q.name, q.unit, q.formula, q.source) for q in table.columns)
        groups.setdefault(terms, []).append(table.name)
    return tuple(
        GlossaryElement(
            heading=listing(names),
            row_meanings=tuple(f"A row of {name} is {TABLES[name].row_meaning}." for name in names),
            terms=terms,
        )
        for terms, names in groups.items()
    )
