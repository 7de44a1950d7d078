"""Builds the `Document` that all formats render, with every text and number of the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import gradflow
from analyses.health.conditions import CONDITIONS
from analyses.registry import Outcome
from analyses.result import Length, Mark, Verdict
from analyses.showing.drawing import draw_or_explain
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Joined, Numeral, Said, message
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Experiment
from reports.document.destinations import destinations_of
from reports.document.figures import PictureOf, draw_figure
from reports.document.methods import methods_of
from reports.document.primer import PRIMER
from reports.document.sections import (
    Numbering,
    build_section,
    figure_label,
    statement_of,
    verdict_line,
    without_what_was_told,
)
from reports.document.selection import OVERVIEW, sections_of, unanswered
from reports.document.shortcuts import shortcuts_of
from reports.document.story.experiment import MOST_SENTENCES, experiment_story
from reports.document.story.own_run import own_run_story
from reports.document.story.story import Story, sentence_of
from reports.document.summary import (
    configuration_of,
    created_of,
    fuller_text,
    question_of,
    section_command,
    title_of,
    warnings_of,
)
from reports.document.topics import Topic, anchors_of, links_of, topics_of
from reports.document.tour import tour_of
from reports.document.wording import date_text
from reports.elements import (
    AnswerSentence,
    Card,
    Document,
    ExplorerElement,
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
SIGNS = (
    f"{Mark.GOOD.sign} marks good news for the training, {Mark.BAD.sign} bad news; other claims "
    "are neither."
)
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
    longer: str = "",
    explorer_of: Callable[[], ExplorerElement | None] | None = None,
) -> Document:
    """Build the report of `experiment` from the outcomes of its analyses.

    `picture_of` draws its figures, those that a report of `length` holds; `explorer_of` gives its
    explorer, by default built here. Links to local files are as seen from `folder`, by default that
    of the experiment; `longer` is the longer page beside it, to which what this report leaves out
    is linked.

    Raises `RunError` if a table of the run is damaged.
    """
    numbering, references = Numbering(), _References()
    # First: meanwhile other processes may draw figures.
    explorer_of = explorer_of or partial(build_explorer, experiment)
    explorer = explorer_of() if length > Length.SUMMARY else None
    overview_figure = _overview_figure(outcomes, numbering, picture_of)
    shown = sections_of(outcomes, length)
    targets = anchors_of(outcomes)
    sections = tuple(
        build_section(
            outcome,
            number,
            numbering,
            references.cite,
            section_command(experiment, outcome.key),
            picture_of,
            targets[outcome.key],
        )
        for number, outcome in enumerate(shown, start=1)
    )
    anchors = links_of(outcomes, length, longer)
    headings = {
        outcome.key: section.heading for outcome, section in zip(shown, sections, strict=True)
    }
    by_analysis = {
        one.key: (one.title, list(topics_of(one, anchors)))
        for one in outcomes
        if one.key != OVERVIEW
    }
    topics = [topic for _, own in by_analysis.values() for topic in own]
    created = created_of(experiment)
    story = _story(experiment, topics)
    if length < Length.FULL:
        sections = without_what_was_told(sections, [one.text for one in story.answer], story.to_do)
    return Document(
        title=title_of(experiment),
        question=story.question,
        subtitle=_subtitle(experiment, created),
        warnings=warnings_of(experiment),
        verdict_counts=_verdict_counts(topics),
        answer=story.answer,
        certainty=story.certainty,
        open_question=story.open_question,
        meanings=story.meanings,
        to_do=story.to_do,
        shortcuts=shortcuts_of(
            {key: anchor for (key, topic), anchor in anchors.items() if not topic and anchor},
            "explorer" if explorer else f"{longer}#explorer" if longer else "",
            by_step=experiment.is_own,
        ),
        # Of an own run the answer has said what was found, in full.
        cards=() if story.is_whole else tuple(_card(topic) for topic in _headlines(topics)),
        overview_figure=overview_figure,
        sections=sections,
        explorer=explorer,
        methods=methods_of(experiment)[: 1 if length is Length.SUMMARY else None],
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
        unanswered=unanswered(outcomes, experiment.networks),
        fuller=fuller_text(experiment, length),
        tour=tour_of(sections, shown),
        longer=longer,
    )


def _story(experiment: Experiment, topics: Sequence[Topic]) -> Story:
    """The first page in words: what spoils a training, then the experiment's story.

    Where that story cannot be told, the headline topics are the answer.
    """
    own = experiment.is_own and not experiment.members
    if own and (told := own_run_story(topics, experiment.networks)):
        return told
    headlines = _headlines(topics)
    spoiling = [_sentence(topic) for topic in headlines if _spoils(topic)]
    seeds = [
        sum(run.network == network for run in experiment.runs) for network in experiment.networks
    ]
    question = question_of(experiment)
    told = None if experiment.members else experiment_story(topics, question, seeds)
    if told is None:
        told = Story(question, tuple(map(_sentence, headlines)), "", "")
        spoiling = []
    return replace(told, answer=(*spoiling, *told.answer)[:MOST_SENTENCES])


def _spoils(topic: Topic) -> bool:
    return topic.analysis == "health_check" and topic.key in SPOILING and topic.holds


def _headlines(topics: Sequence[Topic]) -> list[Topic]:
    """The topics of the first page: what spoils a training, then the headline topics.

    If none of these was tested, they are all topics.
    """
    found = [topic for topic in topics if _spoils(topic)]
    found.sort(key=lambda topic: topic.is_effect)  # what comes first in a chain is told first
    named = [
        topic
        for key, name in HEADLINE_TOPICS
        for topic in topics
        # A topic that compares networks ends in the names of the networks.
        if topic.analysis == key and topic.key.startswith(name)
    ]
    # Of gradients that explode it is the better answer that they do than that they do not vanish.
    vanish, explode = (
        [topic for topic in named if topic.key.startswith(word)] for word in ("vanish", "explode")
    )
    if vanish and explode and explode[0].holds and not vanish[0].holds:
        first, second = named.index(vanish[0]), named.index(explode[0])
        named[first], named[second] = named[second], named[first]
    return [*found, *(named or (one for one in topics if one not in found))][: len(HEADLINE_TOPICS)]


def _overview_figure(
    outcomes: Sequence[Outcome], numbering: Numbering, picture_of: PictureOf
) -> FigureElement | None:
    results = [outcome.result for outcome in outcomes if outcome.key == OVERVIEW]
    figures = [figure for result in results if result for figure in result.figures]
    if not figures:
        return None
    return draw_figure(figures[0], figure_label(numbering), picture_of)


def _card(topic: Topic) -> Card:
    lines = tuple(verdict_line(finding) for finding in topic.findings)
    return Card(statement_of(topic.findings), lines, topic.anchor)


def _sentence(topic: Topic) -> AnswerSentence:
    finding = topic.findings[0]
    agree = len({one.verdict for one in topic.findings}) == 1
    text = topic.common_sentence or Joined(message(one.meaning) for one in topic.findings)
    said = sentence_of(text, finding, topic)
    # If the verdicts differ, the hypothesis names the network of the verdict given.
    return replace(said, hypothesis=statement_of(topic.findings)) if agree else said


def _subtitle(experiment: Experiment, created: datetime | None) -> str:
    runs = plural(len(experiment.runs), "run")
    when = date_text(created) if created else Said("at an unknown date")
    folders = listing([part.folder.resolve().name for part in experiment.members or (experiment,)])
    return Said(
        "{folders}: {runs}, recorded {when}; gradflow {version}",
        folders=folders,
        runs=runs,
        when=when,
        version=gradflow.__version__,
    )


def _verdict_counts(topics: Sequence[Topic]) -> str:
    findings = [finding for topic in topics for finding in topic.findings]
    if not findings:
        return (
            "No hypothesis could be tested with what was recorded; the list of what was not asked "
            "says why."
        )
    counts = [(sum(one.verdict is verdict for one in findings), verdict) for verdict in Verdict]
    outcome = listing(
        [
            Said(
                "{count} {answer} ({verdict})",
                count=Numeral(f"{count}"),
                answer=Said(verdict.answer),
                verdict=Said(verdict.value),
            )
            for count, verdict in counts
            if count
        ]
    )
    claims = plural(len(findings), "claim")
    tested = Said("{claims} tested: {outcome}.", claims=claims, outcome=outcome)
    signs = message(SIGNS) if any(one.bad_if for one in findings) else ""
    return Joined((tested, signs))


def _glossary() -> tuple[GlossaryElement, ...]:
    # Tables with the same columns, e.g. activations and gradients, are explained once.
    groups: dict[tuple[Term, ...], list[str]] = {}
    for table in TABLES.values():
        terms = tuple(Term(q.name, q.unit, q.formula, q.source) for q in table.columns)
        groups.setdefault(terms, []).append(table.name)
    return tuple(
        GlossaryElement(
            heading=listing(names),
            row_meanings=tuple(
                Said(
                    "A row of {table} is {meaning}.",
                    table=name,
                    meaning=Said(TABLES[name].row_meaning),
                )
                for name in names
            ),
            terms=terms,
        )
        for terms, names in groups.items()
    )
