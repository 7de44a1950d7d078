"""The experiment's story: which question is asked, and what is said for every verdict."""

import re
from itertools import product

import pytest

from analyses.accuracy.recalibration.question import LARGEST_DIFFERENCE
from analyses.result import Estimate, Finding, Verdict
from reports.document.story import sentences
from reports.document.story.experiment import MOST_SENTENCES, experiment_story
from reports.document.topics import Topic
from reports.languages.catalogue import catalogue_of, languages

NUMBER = re.compile(r"\d+(?:\.\d+)?")
YES, NO, UNKNOWN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE
GAP = tuple(
    Estimate(LARGEST_DIFFERENCE.format(name), value, unit="%", method="epoch 9; Wilson's interval")
    for name, value in (("running", 72.5), ("re-estimated", 98.1))
)


def topic(analysis, start, verdicts, value, *others, unit="", name="x", ends=(0.5, 2.0)):
    """A topic with a verdict for each network: a dict, or one verdict on a comparison."""
    pairs = verdicts.items() if isinstance(verdicts, dict) else [(None, verdicts)]
    findings = tuple(
        Finding(
            key=f"{start}-{network}" if network else start,
            network=network,
            hypothesis=f"Hypothesis {start} of {network}.",
            contradicted_by="",
            verdict=verdict,
            estimates=(Estimate(name, value, *ends, unit), *others),
            threshold="",
            meaning="",
            next_step=f"Next of {start}.",
        )
        for network, verdict in pairs
    )
    return Topic(analysis, findings, f"{start}-anchor", "")


def whole(jumps=YES, steady=NO, stale=YES, vanish=NO, explode=NO, factor=2.5, skips=YES, gap=GAP):
    return [
        topic("accuracy_jumps", "jumps", {"plain": jumps, "res": steady}, -35.8, unit="points"),
        topic(
            "batchnorm_recalibration", "stale-statistics", {"plain": stale}, 80.5, *gap, unit="%"
        ),
        topic("gradient_profile", "vanish", {"plain": vanish, "res": NO}, factor, ends=(2.0, 3.1)),
        topic("gradient_profile", "explode", {"plain": explode, "res": NO}, factor),
        topic("skip_carry", "skips-carry", {"res": skips}, 0.641, ends=(0.62, 0.657)),
        topic(
            "matched_comparison", "higher-accuracy", YES, 11.7, name="res less plain, last epoch"
        ),
    ]


def told(topics, seeds=(1, 1)):
    return experiment_story(topics, "What do they do?", seeds)


def test_the_story_of_the_digits():
    story = told(whole())
    assert story.question == "Why does the accuracy of plain jump, and that of res hardly?"
    assert [one.text for one in story.answer] == [
        "The jumps of plain are mostly stale batch-norm statistics, not worse weights: at epoch 9 "
        "it classifies 72.5\u00a0% of the validation images, and 98.1\u00a0% with the same weights "
        "once these statistics are computed anew.",
        "The gradients of plain do not vanish: from the last layer back to the first, between "
        "layers of equal shape, their norm grows 2.5 times (95\u00a0% interval 2.0 to 3.1).",
        "In res the skips carry most of each block's gradient: 64\u00a0% of it (95\u00a0% interval "
        "62 to 66).",
    ]
    assert [one.word for one in story.answer] == ["yes", "no", "yes"]
    assert story.answer[0].anchor == "stale-statistics-anchor"
    assert story.certainty == sentences.ONE_SEED
    assert story.open_question == ""


@pytest.mark.parametrize(
    ("jumps", "steady", "question"),
    [
        (YES, NO, "Why does the accuracy of plain jump, and that of res hardly?"),
        (YES, YES, "Why does the accuracy of plain and res jump?"),
        (YES, UNKNOWN, "Why does the accuracy of plain jump?"),
        (NO, NO, "Why is res more accurate than plain at the last epoch?"),
        (NO, UNKNOWN, "Why is res more accurate than plain at the last epoch?"),
    ],
)
def test_the_question_is_about_what_is_there(jumps, steady, question):
    assert told(whole(jumps, steady)).question == question


def test_without_jumps_and_difference_the_question_is_the_general_one():
    topics = [one for one in whole(NO, NO) if one.analysis != "matched_comparison"]
    assert told(topics).question == "What do they do?"


def test_without_accuracy_there_is_no_story_of_an_experiment():
    topics = [one for one in whole() if one.analysis in ("gradient_profile", "skip_carry")]
    assert told(topics) is None


@pytest.mark.parametrize(
    ("vanish", "explode", "factor", "said"),
    [
        (YES, NO, 0.01, "between layers of equal shape, their norm shrinks 100 times"),
        (NO, NO, 1.02, "their norm keeps its size"),
        (NO, YES, 31.9, "do not vanish but explode"),
        (NO, NO, 0.8, "shrinks 1.2 times"),
        (UNKNOWN, UNKNOWN, 0.9, "cannot be told"),
        (UNKNOWN, NO, None, "Whether the gradients of plain vanish cannot be told."),
    ],
)
def test_what_the_gradients_do_is_said_once(vanish, explode, factor, said):
    answer = told(whole(vanish=vanish, explode=explode, factor=factor)).answer
    own = [one.text for one in answer if one.text.count("gradients of plain")]
    assert len(own) == 1
    assert said in own[0]


@pytest.mark.parametrize(
    ("value", "said"),
    [(-5.2, sentences.NONE), (0.0, sentences.NONE), (104.0, sentences.ALL), (12.4, "12\u00a0%")],
)
def test_a_share_that_noise_drives_out_of_range_is_said_in_words(value, said):
    topics = [
        topic("accuracy_jumps", "jumps", {"plain": YES}, -35.8),
        topic("jump_explanation", "explanation", {"plain": NO}, value, unit="%"),
    ]
    (first, *_) = told(topics).answer
    assert said in first.text
    assert "-5.2" not in first.text


def test_the_network_that_falls_most_is_the_one_that_is_told_of():
    falls = [
        topic("accuracy_jumps", "jumps", {"res": YES}, -3.0).findings[0],
        topic("accuracy_jumps", "jumps", {"plain": YES}, -20.0).findings[0],
    ]
    jumps = Topic("accuracy_jumps", tuple(falls), "a", "")
    answer = told([jumps]).answer
    assert answer[0].text.startswith(
        "Between epochs the accuracy of plain falls by as much as 20.0"
    )


def test_what_is_open_is_that_of_the_network_told_of_and_says_how_to_settle_it():
    stale = topic(
        "batchnorm_recalibration", "stale-statistics", {"plain": YES, "res": UNKNOWN}, 8.0
    )
    rest = [one for one in whole() if one.analysis != "batchnorm_recalibration"]
    assert told([*rest, stale]).open_question == ""
    asked = told(whole(stale=UNKNOWN)).open_question
    assert "Hypothesis stale-statistics of plain." in asked
    assert asked.endswith("Next of stale-statistics.")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [((1, 1), "once"), ((1,), "one training"), ((5, 5), "5 times"), ((2, 3), "2 to 3 times")],
)
def test_how_sure_it_is_depends_on_how_often_was_trained(seeds, said):
    assert said in told(whole(), seeds).certainty


def every_outcome():
    verdicts = list(Verdict)
    for jumps, steady, stale, skips in product(verdicts, repeat=4):
        for (vanish, explode), gap in product(product(verdicts, repeat=2), ((), GAP)):
            yield whole(jumps, steady, stale, vanish, explode, 2.5, skips, gap)


def test_every_outcome_has_a_question_and_whole_sentences_without_gaps():
    told_all = set()
    for topics in every_outcome():
        story = told(topics)
        assert story.question.endswith("?")
        assert 1 <= len(story.answer) <= MOST_SENTENCES
        assert len({one.text for one in story.answer}) == len(story.answer)
        texts = [*(one.text for one in story.answer), story.certainty, story.open_question]
        assert not any(sign in text for text in texts for sign in "{}[]")
        assert all(text.endswith(".") for text in texts if text)
        told_all |= set(texts)
    assert len(told_all) > 15  # what is said depends on what was found


@pytest.mark.parametrize("language", [one for one in languages() if one != "en"])
def test_every_outcome_can_be_told_in_every_language(language):
    catalogue = catalogue_of(language)
    texts = set()
    for topics in every_outcome():
        story = told(topics)
        texts |= {story.question, story.meanings, story.certainty}
        texts |= {one.text for one in story.answer}
    assert len(texts) > 15
    for text in texts:
        assert catalogue.holds(text), text
        other = catalogue.say(text)
        assert not set("{}[]") & set(other)
        swapped = other.translate(str.maketrans({catalogue.decimal: ".", catalogue.group: ","}))
        # The order of numbers may be another one.
        assert sorted(NUMBER.findall(swapped)) == sorted(NUMBER.findall(text)), (text, other)


def test_without_jumps_the_difference_and_its_reasons_are_told():
    reason = topic("better_network", "norm-plain-res", UNKNOWN, 1.1)
    skips = topic("better_network", "skips-plain-res", UNKNOWN, 11.7)
    answer = told([*whole(NO, NO), skips, reason]).answer
    assert answer[0].text.startswith(
        "res is more accurate than plain at the last epoch, by 11.7 percentage points (95\u00a0% "
        "interval 0.5 to 2.0). Why cannot be told yet: 1 possible reasons"
    )
    assert "gradients" in answer[1].text
    assert "skips" in answer[2].text


def test_a_network_that_is_behind_is_said_to_be_behind():
    behind = topic(
        "matched_comparison", "ahead", NO, -20.0, name="res less plain, mean over epochs"
    )
    (first, *_) = told([behind]).answer
    assert first.text == (
        "res is not more accurate than plain averaged over epochs: it is 20.0 percentage points "
        "behind (95\u00a0% interval -2.0 to -0.5)."
    )


def test_what_stale_statistics_cost_the_steady_network_is_said_too():
    stale = topic(
        "batchnorm_recalibration", "stale-statistics", {"plain": YES, "res": UNKNOWN}, 80.0, *GAP
    )
    rest = [one for one in whole() if one.analysis != "batchnorm_recalibration"]
    assert "They cost res at most 25.6 percentage points." in told([*rest, stale]).answer[0].text
