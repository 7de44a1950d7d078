"""The story of an experiment: why accuracy jumps, what the gradients do, what the skips carry.

Which question is asked, and which sentences answer it, follows from the findings.
"""

from collections.abc import Iterator, Sequence

from analyses.accuracy.recalibration.question import LARGEST_DIFFERENCE
from analyses.result import Estimate, Finding
from analyses.wording.phrases import listing
from analyses.wording.translatable import Joined, Numeral, Said, message
from reports.document.story import sentences as words
from reports.document.story.amounts import (
    interval_of_points,
    interval_of_share,
    interval_of_times,
    part_of_movement,
    percentage,
    points,
    share,
    times,
)
from reports.document.story.story import Story, sentence_of
from reports.document.topics import Topic, find_topic
from reports.elements import AnswerSentence

MOST_SENTENCES = 3
# In the stale-statistics finding; the method begins with the epoch.
MEASURED, FRESH = (LARGEST_DIFFERENCE.format(name) for name in ("running", "re-estimated"))
_KEPT = 1.05  # a factor over the depth nearer to 1 is no growth
STALENESS = ("batchnorm_recalibration", "stale-statistics")
# Topics whose being open the reader should know of, most important first.
_OPEN = (
    ("gradient_profile", "vanish"),
    STALENESS,
    ("jump_explanation", "explanation"),
    ("jump_explanation", "association"),
    ("better_network", "skips"),
    ("skip_carry", "skips-carry"),
)

_OPEN_WITHOUT_JUMPS = (
    ("accuracy_jumps", "jumps"),
    *(one for one in _OPEN if one[0] in ("gradient_profile", "better_network", "skip_carry")),
)


def experiment_story(topics: Sequence[Topic], fallback: str, seeds: Sequence[int]) -> Story | None:
    """The story of an experiment; None if nothing was tested about its accuracy.

    Args:
        topics: everything that was tested.
        fallback: the question if the findings suggest no better one.
        seeds: how many trainings of each network were recorded.
    """
    jumps = find_topic(topics, "accuracy_jumps", "jumps")
    ahead = _difference(topics)
    if jumps is None and ahead is None:
        return None
    jumping = [one for one in (jumps.findings if jumps else ()) if one.verdict is words.YES]
    focus = _focus(jumping, topics)
    answer = [*_on_jumps(topics, jumping)]
    if not answer and ahead is not None:
        answer = [*_on_difference(ahead, topics)]
    answer += _on_gradients(topics, focus)
    answer += _on_skips(topics)
    return Story(
        question=_question(jumps, jumping, ahead) or fallback,
        answer=tuple(answer[:MOST_SENTENCES]),
        certainty=_certainty(seeds),
        open_question=_open(topics, focus, jumps=bool(jumping)),
        meanings=_meanings(answer[:MOST_SENTENCES], topics),
    )


def _question(jumps: Topic | None, jumping: Sequence[Finding], ahead: Topic | None) -> str:
    if jumps and jumping:
        names = listing([str(one.network) for one in jumping])
        steady = [str(one.network) for one in jumps.findings if one.verdict is words.NO]
        if steady:
            return Said(words.JUMPS_IN_SOME, jumping=names, steady=listing(steady))
        return Said(words.JUMPS_IN_ALL, jumping=names)
    if ahead and ahead.findings[0].verdict is words.YES:
        return Said(words.BETTER, **_compared(ahead.findings[0]))
    return ""


def _focus(jumping: Sequence[Finding], topics: Sequence[Topic]) -> str | None:
    """The network that the answer is about: the one that jumps most, else the first measured."""
    if jumping:
        return min(jumping, key=lambda one: _value(one) or 0.0).network
    vanish = find_topic(topics, "gradient_profile", "vanish")
    return vanish.findings[0].network if vanish else None


def _on_jumps(topics: Sequence[Topic], jumping: Sequence[Finding]) -> Iterator[AnswerSentence]:
    """What the jumps are made of, in the network that falls most."""
    if not jumping:
        return
    fall = min(jumping, key=lambda one: _value(one) or 0.0)
    network = str(fall.network)
    for analysis, start, write in (
        (*STALENESS, _on_stale_statistics),
        ("jump_explanation", "explanation", _on_real_jumps),
        ("accuracy_jumps", "jumps", _on_the_fall),
    ):
        topic = find_topic(topics, analysis, start)
        finding = topic.of(network) if topic else None
        if topic and finding and (said := write(network, finding)):
            text = Joined((said, _on_the_steady(topics, topic)))
            yield sentence_of(text, finding, topic)
            return


def _on_stale_statistics(network: str, finding: Finding) -> str:
    gap = _gap(finding)
    if gap and finding.verdict is not words.NO:
        measured, fresh = gap
        where, _, _ = measured.method.partition(";")
        return Said(
            words.STALE_WITH_GAP[finding.verdict],
            network=network,
            where=_place(where),
            measured=percentage(measured),
            fresh=percentage(fresh),
        )
    first = _first(finding)
    if first is None:
        return ""
    return Said(words.STALE[finding.verdict], network=network, part=part_of_movement(first))


def _place(where: str) -> str:
    """The epoch, and the seed if there are several, as the estimate's method names them."""
    epoch, _, seed = where.removeprefix("epoch ").partition(" of seed ")
    if seed:
        return Said(words.AT_EPOCH_OF_SEED, epoch=Numeral(epoch), seed=Numeral(seed))
    return Said(words.AT_EPOCH, epoch=Numeral(epoch))


def _on_the_steady(topics: Sequence[Topic], told: Topic) -> str:
    """What stale statistics cost the first network that hardly jumps; "" if that is not told."""
    jumps = find_topic(topics, "accuracy_jumps", "jumps")
    steady = [one.network for one in (jumps.findings if jumps else ()) if one.verdict is words.NO]
    finding = told.of(str(steady[0])) if steady and told.analysis == STALENESS[0] else None
    gap = _gap(finding) if finding else None
    if gap is None:
        return ""
    lost = (gap[1].value or 0) - (gap[0].value or 0)
    return Said(words.STEADY, network=str(steady[0]), points=points(lost))


def _gap(finding: Finding) -> tuple[Estimate, Estimate] | None:
    """Accuracy as measured and with fresh statistics, where the fresh ones give more."""
    named = {
        name: one for one in finding.estimates for name in (MEASURED, FRESH) if one.name == name
    }
    if len(named) < 2:
        return None
    measured, fresh = named[MEASURED], named[FRESH]
    return (measured, fresh) if (fresh.value or 0) > (measured.value or 0) else None


def _on_real_jumps(network: str, finding: Finding) -> str:
    first = _first(finding)
    if first is None:
        return ""
    return Said(words.REAL[finding.verdict], network=network, part=part_of_movement(first))


def _on_the_fall(network: str, finding: Finding) -> str:
    value = _value(finding)
    return "" if value is None else Said(words.JUMPS_ALONE, network=network, points=points(value))


def _difference(topics: Sequence[Topic]) -> Topic | None:
    """Which network is more accurate at the last epoch, else averaged over epochs."""
    last = find_topic(topics, "matched_comparison", "higher-accuracy")
    found = last or find_topic(topics, "matched_comparison", "ahead")
    if found is None or _value(found.findings[0]) is None:
        return None
    return found if all(_compared(found.findings[0]).values()) else None


def _on_difference(topic: Topic, topics: Sequence[Topic]) -> Iterator[AnswerSentence]:
    """Which network is more accurate, and why: the first reason that an intervention has shown."""
    finding = topic.findings[0]
    said, value = words.DIFFERENCE[finding.verdict], _value(finding) or 0.0
    text = Said(
        said,
        **_compared(finding),
        points=points(value),
        interval=interval_of_points(finding.estimates[0]),
        side=message(words.BEHIND if value < 0 else words.AHEAD),
    )
    compared = [one for one in topics if one.analysis == "better_network"]
    reasons = [one for one in compared if not one.key.startswith("skips-")]
    shown = next((one for one in reasons if one.holds), None)
    if not shown and reasons and compared[0].findings[0].verdict is words.UNKNOWN:
        untold = Said(words.NO_REASON_SHOWN, count=Numeral(f"{len(reasons)}"))
        yield sentence_of(Joined((text, untold)), finding, topic)
        return
    yield sentence_of(text, finding, topic)
    if shown:
        yield sentence_of(shown.findings[0].meaning, shown.findings[0], shown)


def _compared(finding: Finding) -> dict[str, str]:
    """The networks of a comparison and when it is made: "a less b, last epoch" is the estimate."""
    better, _, rest = finding.estimates[0].name.partition(" less ")
    worse, _, when = rest.partition(",")
    last = when.strip() == "last epoch"
    return {
        "better": better,
        "worse": worse,
        "when": message(words.AT_THE_LAST_EPOCH if last else words.OVER_EPOCHS),
    }


def _on_gradients(topics: Sequence[Topic], network: str | None) -> Iterator[AnswerSentence]:
    vanish = find_topic(topics, "gradient_profile", "vanish")
    explode = find_topic(topics, "gradient_profile", "explode")
    if vanish is None:
        return
    finding = vanish.of(str(network)) or vanish.findings[0]
    explodes = explode.of(str(finding.network)) if explode else None
    if explode and explodes and explodes.verdict is words.YES:
        yield sentence_of(_gradients(finding, exploding=True), explodes, explode)
    else:
        yield sentence_of(_gradients(finding, exploding=False), finding, vanish)


def _gradients(finding: Finding, *, exploding: bool) -> str:
    network, first = str(finding.network), _first(finding)
    if first is None or not first.value:
        return Said(words.GRADIENTS_UNMEASURED, network=network)
    if finding.verdict is words.UNKNOWN and not exploding:
        return Said(words.GRADIENTS_UNKNOWN, network=network, factor=first.words)
    if exploding:
        said = words.EXPLODE
    elif finding.verdict is words.YES:
        said = words.VANISH
    elif 1 / _KEPT < first.value < _KEPT:
        return Said(words.KEEP, network=network, factor=first.words)
    else:
        said = words.GROW if first.value >= 1 else words.SHRINK
    amount = {"times": times(first.value), "interval": interval_of_times(first)}
    return Said(said, network=network, **amount)


def _on_skips(topics: Sequence[Topic]) -> Iterator[AnswerSentence]:
    topic = find_topic(topics, "skip_carry", "skips-carry")
    if topic is None:
        return
    finding = topic.findings[0]
    if (first := _first(finding)) is not None:
        said = words.SKIPS[finding.verdict]
        amount = {"share": share(first), "interval": interval_of_share(first)}
        text = Said(said, network=str(finding.network), **amount)
        yield sentence_of(text, finding, topic)


def _meanings(answer: Sequence[AnswerSentence], topics: Sequence[Topic]) -> str:
    """What the words of the answer, and of the picture below it, mean to a student."""
    said = " ".join(one.text for one in answer)
    if find_topic(topics, *STALENESS):
        said += " stale"  # the picture shows what these statistics cost
    meant = {"stale": words.WORDS_OF_STALENESS, "skips": words.WORDS_OF_SKIPS}
    return Joined(message(meaning) for word, meaning in meant.items() if word in said)


def _certainty(seeds: Sequence[int]) -> str:
    counts = sorted(set(seeds))
    if counts == [1]:
        return words.ONE_SEED if len(seeds) > 1 else words.ONE_TRAINING
    if len(counts) == 1:
        return Said(words.SEVERAL_SEEDS, seeds=Numeral(f"{counts[0]}"))
    if not counts:
        return ""
    fewest, most = (Numeral(f"{counts[end]}") for end in (0, -1))
    return Said(words.DIFFERENT_SEEDS, fewest=fewest, most=most)


def _open(topics: Sequence[Topic], focus: str | None, *, jumps: bool) -> str:
    """The most important claim that could not be settled, and what would settle it.

    A claim on each network is open if it is open for the network that the answer is about. What
    jumps are made of is no question unless there are some.
    """
    for analysis, start in _OPEN if jumps else _OPEN_WITHOUT_JUMPS:
        topic = find_topic(topics, analysis, start)
        asked = topic and (topic.of(str(focus)) or topic.findings[0])
        if asked and asked.verdict is words.UNKNOWN and asked.next_step:
            return Said(
                words.STILL_OPEN, claim=message(asked.hypothesis), step=message(asked.next_step)
            )
    return ""


def _first(finding: Finding) -> Estimate | None:
    """The estimate that the verdict rests on, if it has a value."""
    first = finding.estimates[0] if finding.estimates else None
    return first if first is not None and first.value is not None else None


def _value(finding: Finding) -> float | None:
    first = _first(finding)
    return first.value if first else None
