"""The document fixes the order, numbers and texts of a report for every kind of experiment."""

from dataclasses import replace

import pandas as pd
import pytest

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Table, Verdict
from gradflow.runs.format.schema import TABLES
from reports.document.builder import HEADLINE_TOPICS, MOST_SENTENCES, build_document
from reports.document.sections import table_element


def test_answer_opens_with_the_first_headline_and_is_three_sentences_at_most(experiment, outcomes):
    document = build_document(experiment, outcomes)
    assert document.answer[0].text == "Of both networks together."
    assert document.answer[0].hypothesis == "Gradients vanish"
    assert document.answer[0].anchor == "section-2-claim-1"
    assert document.answer[1].text.startswith("The meaning of higher-accuracy")
    assert len(document.answer) <= MOST_SENTENCES


def test_the_hypothesis_names_its_network_if_verdicts_differ(experiment, outcomes):
    result = outcomes[1].result
    first, second = result.findings
    mixed = replace(result, findings=(first, replace(second, verdict=Verdict.SUPPORTED)))
    document = build_document(experiment, [replace(outcomes[1], result=mixed)])
    assert document.answer[0].text == "Of both networks together."
    assert document.answer[0].hypothesis == first.hypothesis
    assert document.answer[0].verdict is first.verdict


def test_without_a_common_sentence_all_meanings_are_given(experiment, outcomes):
    alone = replace(outcomes[1], result=replace(outcomes[1].result, together={}))
    document = build_document(experiment, [alone])
    meanings = [finding.meaning for finding in alone.result.findings]
    assert document.answer[0].text == " ".join(meanings)


def test_first_page_falls_back_on_other_analyses_and_is_never_long(experiment, outcomes):
    findings = outcomes[0].result.findings
    many = tuple(replace(findings[0], key=str(n), meaning=f"{n}.") for n in range(20))
    result = replace(outcomes[0].result, findings=many, figures=(), tables=())
    document = build_document(experiment, [replace(outcomes[0], key="other", result=result)])
    assert len(document.answer) == MOST_SENTENCES
    assert len(document.cards) == len(HEADLINE_TOPICS)


def health(outcomes, condition, verdict):
    """The outcome of a health check that tested one condition of one network."""
    one = replace(
        outcomes[1].result.findings[0],
        key=f"{condition}-plain34",
        hypothesis=f"It is {condition}.",
        verdict=verdict,
        meaning=f"In plain34 it is {condition}.",
    )
    result = replace(outcomes[1].result, findings=(one,), figures=(), tables=(), together={})
    return replace(outcomes[1], key="health_check", result=result)


def test_what_spoils_a_training_opens_the_report(experiment, outcomes):
    found = health(outcomes, "disconnected", Verdict.SUPPORTED)
    document = build_document(experiment, [*outcomes[:2], found])
    assert document.answer[0].text == "In plain34 it is disconnected."
    assert document.answer[1].text == "Of both networks together."
    assert [card.statement for card in document.cards[:2]] == [
        "It is disconnected.",
        "Gradients vanish",
    ]


def test_an_effect_is_told_after_what_brought_it_about(experiment, outcomes):
    one = health(outcomes, "non-finite", Verdict.SUPPORTED)
    other = health(outcomes, "overshooting", Verdict.SUPPORTED).result.findings
    effect = replace(one.result.findings[0], effect_of="overshooting")
    both = replace(one, result=replace(one.result, findings=(effect, *other)))
    document = build_document(experiment, [*outcomes[:2], both])
    assert [told.text for told in document.answer[:2]] == [
        "In plain34 it is overshooting.",
        "In plain34 it is non-finite.",
    ]


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ("disconnected", Verdict.CONTRADICTED),
        ("disconnected", Verdict.INCONCLUSIVE),
        ("noisy", Verdict.SUPPORTED),
        ("unused", Verdict.SUPPORTED),
    ],
)
def test_what_does_not_spoil_a_training_is_told_in_its_section(
    experiment, outcomes, condition, verdict
):
    document = build_document(experiment, [*outcomes[:2], health(outcomes, condition, verdict)])
    assert condition not in str(document.answer)
    assert document.answer[0].text == "Of both networks together."


@pytest.mark.parametrize(
    ("vanish", "explode", "first"),
    [
        (Verdict.CONTRADICTED, Verdict.SUPPORTED, "explode"),
        (Verdict.SUPPORTED, Verdict.CONTRADICTED, "vanish"),
        (Verdict.CONTRADICTED, Verdict.CONTRADICTED, "vanish"),
    ],
)
def test_gradients_that_explode_are_told_before_that_they_do_not_vanish(
    experiment, outcomes, vanish, explode, first
):
    result = outcomes[1].result
    findings = tuple(
        replace(
            result.findings[0],
            key=f"{name}-plain34",
            hypothesis=f"They {name}.",
            verdict=verdict,
            meaning=f"On {name}.",
        )
        for name, verdict in (("vanish", vanish), ("explode", explode))
    )
    result = replace(result, findings=findings, together={})
    document = build_document(experiment, [replace(outcomes[1], result=result)])
    assert document.answer[0].hypothesis == f"They {first}."


def test_findings_of_one_topic_share_a_claim_under_their_statement(experiment, outcomes):
    (shared,) = build_document(experiment, outcomes).sections[1].claims
    assert shared.heading == "Gradients vanish"
    assert [part.line.network for part in shared.findings] == ["plain34", "resnet34"]
    assert shared.caveats == ("One data set.", "Few seeds.")


def test_evidence_is_placed_with_the_first_claim_that_names_it(experiment, outcomes):
    first, second, _ = build_document(experiment, outcomes).sections[0].claims
    assert [figure.title for figure in first.figures] == ["Figure title curves."]
    assert (second.figures, second.shown_before) == ((), (first.figures[0].label,))


def test_a_table_may_have_the_key_of_its_figure(experiment, outcomes):
    result = outcomes[1].result
    table = replace(result.tables[0], key=result.figures[0].key)
    findings = tuple(replace(one, evidence=(table.key,)) for one in result.findings)
    shared = replace(result, findings=findings, tables=(table,))
    document = build_document(experiment, [replace(outcomes[1], result=shared)])
    (claim,) = document.sections[0].claims
    assert [part.label for part in (*claim.figures, *claim.tables)] == ["Figure 1", "Table 1"]


def test_overview_figure_opens_the_report_and_has_no_section(experiment, outcomes):
    figure = outcomes[0].result.figures[0]
    overview = Outcome("overview", "", "", AnalysisResult("", (), (figure,), (), "", ()))
    document = build_document(experiment, [*outcomes, overview])
    assert document.overview_figure.label == "Figure 1"
    assert len(document.sections) == len(build_document(experiment, outcomes).sections)
    assert build_document(experiment, outcomes).overview_figure is None


def test_verdicts_are_counted(experiment, outcomes):
    counts = build_document(experiment, outcomes).verdict_counts
    assert counts == (
        "11 claims tested: 1 yes (supported), 7 no (contradicted) and 3 can't tell (inconclusive)."
    )


def test_every_finding_has_a_verdict_with_its_first_estimate(experiment, outcomes):
    document = build_document(experiment, outcomes)
    findings = [f for outcome in outcomes if outcome.result for f in outcome.result.findings]
    assert sum(len(card.lines) for card in document.verdicts) == len(findings)
    card = next(card for card in document.verdicts if "supported" in card.anchor + card.statement)
    (line,) = card.lines
    assert (line.network, line.signed, card.anchor) == ("plain34", "yes", "section-1-claim-1")
    assert line.measure == "ratio of curve-supported"
    assert line.number == "54.3\u00a0% (95\u00a0% interval 51.2 to 57.9)"


def test_sections_keep_their_order_and_what_was_not_asked_has_none(experiment, outcomes):
    document = build_document(experiment, outcomes)
    sections = document.sections
    assert [section.heading[:3] for section in sections] == ["1. ", "2. ", "3. ", "4. ", "5. "]
    (one,) = document.unanswered
    assert one.reason == "No residual additions"
    assert one.questions == (outcomes[4].title,)
    assert sections[4].notice == "This section failed: ValueError: it broke"


def test_figures_and_tables_are_numbered_through_the_report(experiment, outcomes):
    document = build_document(experiment, outcomes)
    figures = [figure.label for section in document.sections for figure in section.all_figures]
    assert figures == [f"Figure {number}" for number in range(1, 8)]
    tables = [table.label for section in document.sections for table in section.all_tables]
    tables += [table.label for table in document.configuration]
    assert tables == [f"Table {number}" for number in range(1, len(tables) + 1)]


def test_long_table_is_cut_and_says_how_long_it_is(experiment, outcomes):
    long = build_document(experiment, outcomes).sections[1].tables[1]
    assert len(long.rows) == 60
    assert long.note == "The first 60 of 90 rows."


def test_a_source_cited_twice_is_listed_once(experiment, outcomes):
    document = build_document(experiment, outcomes)
    assert document.references[0] == "[1] He et al. 2015, section 4.1"
    assert document.references == (
        "[1] He et al. 2015, section 4.1",
        "[2] Source of curves",
        "[3] Source of profile",
        "[4] Source of <script>alert(1)</script>",
    )
    assert document.sections[1].sources[0] == "[1] He et al. 2015, section 4.1"


def test_glossary_holds_every_recorded_quantity(experiment):
    document = build_document(experiment, ())
    explained = {term.name for part in document.glossary for term in part.terms}
    assert explained == {q.name for table in TABLES.values() for q in table.columns}


def test_a_document_needs_no_findings(experiment):
    outcome = Outcome("skip_carry", "Skip connections", "?", not_applicable="nothing recorded")
    document = build_document(experiment, [outcome])
    assert document.verdicts == ()
    assert document.answer == ()
    assert document.verdict_counts.startswith("No hypothesis could be tested")


def test_date_is_that_of_the_experiment(experiment, outcomes):
    document = build_document(experiment, outcomes)
    assert "recorded 3 May 2025, 14:05 UTC" in document.subtitle


def test_table_without_rows_says_so():
    element = table_element(Table("t", "Empty", pd.DataFrame({"layer": []})), "Table 1")
    assert (element.columns, element.rows) == (("layer",), ())
    assert element.note == "No rows: there was nothing to list."
    assert table_element(Table("t", "Bare", pd.DataFrame()), "Table 1").rows == ()
