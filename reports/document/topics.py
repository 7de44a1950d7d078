"""The findings of a report by claim, with the place in the report that gives the evidence."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analyses.registry import Outcome
from analyses.result import Finding, Length, Verdict
from reports.document.sections import claim_anchor, group_by_topic, section_anchor
from reports.document.selection import sections_of


@dataclass(frozen=True)
class Topic:
    """The findings of one analysis on one hypothesis, and the anchor of their claim."""

    analysis: str
    findings: tuple[Finding, ...]
    anchor: str
    common_sentence: str

    @property
    def key(self) -> str:
        """The key that the findings share."""
        return self.findings[0].topic

    @property
    def holds(self) -> bool:
        """Whether the hypothesis is supported for some network."""
        return any(finding.verdict is Verdict.SUPPORTED for finding in self.findings)

    @property
    def is_effect(self) -> bool:
        """Whether something else that was found brought it about, in every network that has it."""
        ill = [one for one in self.findings if one.verdict is Verdict.SUPPORTED]
        return all(one.effect_of for one in ill)

    def of(self, network: str) -> Finding | None:
        """The finding on `network`."""
        return next((one for one in self.findings if one.network == network), None)


# The key of an analysis, and that of a topic of it.
TopicKey = tuple[str, str]


def anchors_of(outcomes: Sequence[Outcome]) -> dict[str, dict[str, str]]:
    """The link targets in the section of each analysis, by topic; that of the section is "".

    They are counted in the longest report, so that they are the same in reports of all lengths.
    """
    anchors = {}
    for number, outcome in enumerate(sections_of(outcomes, Length.FULL), start=1):
        groups = group_by_topic(outcome.result.findings) if outcome.result else []
        claims = {
            group[0].topic: claim_anchor(number, claim)
            for claim, group in enumerate(groups, start=1)
        }
        anchors[outcome.key] = {"": section_anchor(number)} | claims
    return anchors


def links_of(outcomes: Sequence[Outcome], length: Length, longer: str) -> dict[TopicKey, str]:
    """Where each topic is told: here, else in the `longer` page; "" if in neither.

    Where a report leaves out a claim, the link leads to the section that it would stand in.
    """
    targets = anchors_of(outcomes)
    here = _told_in(sections_of(outcomes, length))
    there = _told_in(sections_of(outcomes, Length.STANDARD)) if longer else set()

    def link(key: str, topic: str) -> str:
        for told, page in ((here, ""), (there, f"{longer}#")):
            for place in (topic, ""):
                if (key, place) in told:
                    return f"{page}{targets[key][place]}"
        return ""

    return {(key, topic): link(key, topic) for key, own in targets.items() for topic in own}


def _told_in(outcomes: Iterable[Outcome]) -> set[TopicKey]:
    """The topics that the sections of `outcomes` tell; that of a whole section is ""."""
    return {
        (one.key, topic)
        for one in outcomes
        if one.result
        for topic in ("", *(finding.topic for finding in one.result.findings))
    }


def topics_of(outcome: Outcome, anchors: Mapping[TopicKey, str]) -> Iterable[Topic]:
    """All topics of `outcome`; the anchor of one that cannot be linked to is ""."""
    for group in group_by_topic(outcome.result.findings) if outcome.result else []:
        topic = group[0].topic
        common_sentence = outcome.result.together.get(topic, "") if outcome.result else ""
        yield Topic(outcome.key, group, anchors.get((outcome.key, topic), ""), common_sentence)


def find_topic(topics: Sequence[Topic], analysis: str, start: str) -> Topic | None:
    """The first topic of `analysis` whose key begins with `start`.

    The key of a topic that compares networks ends in their names.
    """
    found = (one for one in topics if one.analysis == analysis and one.key.startswith(start))
    return next(found, None)
