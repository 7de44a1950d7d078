"""The story of a run in its owner's loop: what is wrong, where, since when, and what to do."""

from collections.abc import Sequence

from analyses.health.conditions import CONDITIONS
from analyses.result import Finding, Verdict
from analyses.wording.phrases import listing
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
    if wrong:
        answer = tuple(
            sentence_of(finding.meaning, finding, topic) for topic, finding in wrong[:MOST_WRONG]
        )
        to_do = tuple(dict.fromkeys(finding.next_step for _, finding in wrong))
    else:
        answer = tuple(sentence_of(_well(one), one, overall) for one in overall.findings)
        # Only what is open: a network that is well needs nothing done.
        is_open = [one for one in overall.findings if one.verdict is Verdict.INCONCLUSIVE]
        to_do = tuple(dict.fromkeys(one.next_step for one in is_open))
    left = len(wrong) - MOST_WRONG
    return Story(
        question=words.OWN_QUESTION.format(networks=listing(list(networks))),
        answer=answer,
        certainty=words.OWN_FURTHER.format(count=left) if left > 0 else "",
        open_question="",
        to_do=to_do,
        is_whole=True,
    )


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


def _well(finding: Finding) -> str:
    text = words.NOTHING_FOUND if finding.verdict is Verdict.SUPPORTED else words.NOTHING_CERTAIN
    return text.format(meaning=finding.meaning)
