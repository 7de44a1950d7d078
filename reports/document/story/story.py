"""What a story consists of, whichever reader it is told to."""

from dataclasses import dataclass

from analyses.result import Finding, Mark
from reports.document.topics import Topic
from reports.elements import AnswerSentence


@dataclass(frozen=True)
class Story:
    """The first page in words.

    Fields:
        question: as the reader asks it.
        answer: at most three sentences, each with the claim that it settles.
        certainty: how sure that is, in one or two sentences.
        is_whole: whether the answer tells all that was found, so that no cards need to.
        to_do: what to do about it, in order; empty if nothing is wrong.
        meanings: what words of the answer mean, in a sentence each.
        open_question: what cannot be told yet, and what would settle it; "" if nothing is open.
    """

    question: str
    answer: tuple[AnswerSentence, ...]
    certainty: str
    open_question: str
    to_do: tuple[str, ...] = ()
    meanings: str = ""
    is_whole: bool = False


def sentence_of(text: str, finding: Finding, topic: Topic) -> AnswerSentence:
    """The sentence `text`, which says what `finding` found of its claim.

    Good news has no sign here: before the legend of the signs, a tick beside "no" is a riddle.
    """
    return AnswerSentence(
        text=text,
        hypothesis=finding.hypothesis,
        verdict=finding.verdict,
        sign="" if finding.mark is Mark.GOOD else finding.mark.sign,
        word=finding.verdict.answer,
        anchor=topic.anchor,
        mark=finding.mark,
    )
