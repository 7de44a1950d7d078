"""The story of a run in its owner's loop: what is wrong, where, since when, and what to do."""

from collections import Counter
from collections.abc import Sequence

from analyses.health.conditions import CONDITIONS
from analyses.result import Finding, Verdict
from analyses.wording.phrases import listing
from analyses.wording.translatable import Numeral, Said, message
from reports.document.story import sentences as words
from reports.document.story.story import Story, sentence_of
from reports.document.topics import Topic, find_topic

MOST_WRONG = 4  # sentences; a network with more has most of them as effects of the first
# Conditions that the gradient profile tells, over all of training.
_BY_PROFILE = (("gradient_profile", "vanish"), ("gradient_profile", "explode"))


def own_run_story(topics: Sequence[Topic], networks: Sequence[str]) -> Story | None:
    """What is wrong, in the order of the chain; None if nothing was asked of the health.

    Where nothing was found, the answer says so, and what was asked.
    """
    overall = find_topic(topics, "health_check", "healthy")
    if overall is None:
        return None
    wrong = _wrong(topics)
    named = {finding.network for _, finding in wrong}
    # Networks of which nothing wrong is told: well, open, or ill as the health check alone saw.
    others = [one for one in overall.findings if one.network not in named]
    answer = [
        *(sentence_of(finding.meaning, finding, topic) for topic, finding in wrong[:MOST_WRONG]),
        *(sentence_of(_other(one), one, overall) for one in others),
    ]
    steps = [
        *(finding.next_step for _, finding in wrong),
        *(step for one in others for step in _to_do(one, topics)),
    ]
    left = len(wrong) - MOST_WRONG
    return Story(
        question=Said(words.OWN_QUESTION, networks=listing(list(networks))),
        answer=tuple(answer),
        certainty=Said(words.OWN_FURTHER, count=Numeral(f"{left}")) if left > 0 else "",
        open_question="",
        to_do=tuple(dict.fromkeys(step for step in steps if step)),
        is_whole=_tells_all(wrong, overall),
    )


def _tells_all(wrong: Sequence[tuple[Topic, Finding]], overall: Topic) -> bool:
    """Whether as many conditions are told of each network as its health check has found."""
    told = Counter(finding.network for _, finding in wrong)
    return all(told[one.network] >= (one.estimates[0].value or 0) for one in overall.findings)


def _to_do(overall: Finding, topics: Sequence[Topic]) -> list[str]:
    """What to do about a network of which nothing wrong is told; nothing if it is well."""
    if overall.verdict is Verdict.SUPPORTED:
        return []
    if overall.verdict is Verdict.CONTRADICTED:
        return [overall.next_step]
    return [
        one.next_step
        for topic in topics
        if _is_of_health(topic)
        for one in topic.findings
        if one.network == overall.network and one.verdict is Verdict.INCONCLUSIVE
    ]


def _wrong(topics: Sequence[Topic]) -> list[tuple[Topic, Finding]]:
    """What was found, causes before their effects."""
    found = [
        (topic, finding)
        for topic in topics
        if _is_of_health(topic)
        for finding in topic.findings
        if finding.verdict is Verdict.SUPPORTED
    ]
    return sorted(found, key=lambda pair: bool(pair[1].effect_of))


def _is_of_health(topic: Topic) -> bool:
    if topic.analysis == "health_check":
        return topic.key != "healthy" and not CONDITIONS[topic.key].harmless
    return (topic.analysis, topic.key) in _BY_PROFILE


def _other(finding: Finding) -> str:
    """The finding on a network as a whole, where no condition of it is told."""
    if finding.verdict is Verdict.CONTRADICTED:
        return finding.meaning
    text = words.NOTHING_FOUND if finding.verdict is Verdict.SUPPORTED else words.NOTHING_CERTAIN
    return Said(text, meaning=message(finding.meaning))
