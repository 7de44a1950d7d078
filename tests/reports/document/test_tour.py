"""The guided tour asks what the report answers, about figures that the report has."""

from dataclasses import replace

import pytest

from analyses.registry import Outcome, built_in
from analyses.result import AnalysisResult, Verdict
from reports.document.builder import build_document
from reports.document.tour import FEWEST_STEPS, QUESTIONS


def answered(question, finding, draw_as, networks=("a", "b"), **changes):
    """An outcome with an answer to `question` for each network, and a figure."""
    figure = replace(draw_as.figures[0], key="shown")
    findings = tuple(
        finding(
            f"{question.topic}-{network}",
            Verdict.SUPPORTED,
            network,
            meaning=f"{network}: 54.3.",
            evidence=("shown",),
        )
        for network in networks
    )
    result = AnalysisResult("", findings, (figure,), (), "", (), **changes)
    return Outcome(question.analysis, question.analysis, "", result)


@pytest.fixture
def steps_of(experiment, outcomes, make_finding):
    def steps(questions, **changes):
        parts = [answered(one, make_finding, outcomes[0].result, **changes) for one in questions]
        return build_document(experiment, parts).tour

    return steps


def test_each_question_is_of_an_analysis_that_there_is():
    assert {one.analysis for one in QUESTIONS} <= {one.key for one in built_in()}


def test_all_questions_come_in_their_order_with_answer_claim_and_figure(steps_of):
    steps = steps_of(QUESTIONS[::-1])
    assert [step.question for step in steps] == [one.text for one in QUESTIONS]
    assert {step.answer for step in steps} == {"a: 54.3. b: 54.3."}
    # The sections, and with them the figures, are numbered in the order given: the reverse.
    count = len(QUESTIONS)
    assert [step.figure for step in steps] == [f"Figure {n}" for n in range(count, 0, -1)]
    assert [step.anchor for step in steps] == [f"section-{n}-claim-1" for n in range(count, 0, -1)]


def test_one_sentence_on_all_networks_is_the_answer_where_there_is_one(steps_of):
    steps = steps_of(QUESTIONS[:3], together={QUESTIONS[1].topic: "In both: 2."})
    assert [step.answer for step in steps][1] == "In both: 2."


def test_what_was_not_tested_is_not_asked(steps_of):
    assert len(steps_of(QUESTIONS[:FEWEST_STEPS])) == FEWEST_STEPS
    assert steps_of(QUESTIONS[: FEWEST_STEPS - 1]) == ()


def test_outcomes_without_findings_ask_nothing(experiment):
    parts = [Outcome(one.analysis, "", "", not_applicable="no skips") for one in QUESTIONS]
    assert build_document(experiment, parts).tour == ()
