"""The document decides order, numbers and wording once, whatever an experiment holds."""

from dataclasses import replace

import pandas as pd

from analyses.registry import Outcome
from analyses.result import Table
from gradflow.runs.schema import TABLES
from reports.document import LONGEST_ANSWER, build_document
from reports.sections import table_part


def test_answer_opens_with_the_most_important_analyses(experiment, outcomes):
    document = build_document(experiment, outcomes)
    assert document.answer[0].text == "The meaning of profile is that the ratio is 54.3."
    assert document.answer[0].section == "section-2"
    assert document.answer[1].text.startswith("The meaning of curve-supported")


def test_answer_has_the_first_finding_of_each_network_of_the_important(experiment, outcomes):
    document = build_document(experiment, outcomes)
    assert {sentence.section for sentence in document.answer} == {"section-1", "section-2"}
    twice = outcomes[1].result.findings * 2
    second = replace(twice[1], key="second", meaning="The second one.")
    result = replace(outcomes[1].result, findings=(twice[0], second), figures=(), tables=())
    document = build_document(experiment, [replace(outcomes[1], result=result)])
    assert [sentence.text for sentence in document.answer] == [twice[0].meaning]


def test_answer_falls_back_on_other_analyses_and_is_never_long(experiment, outcomes):
    findings = outcomes[0].result.findings
    many = tuple(replace(findings[0], network=str(n), meaning=f"{n}.") for n in range(20))
    result = replace(outcomes[0].result, findings=many, figures=(), tables=())
    document = build_document(experiment, [replace(outcomes[0], key="other", result=result)])
    assert len(document.answer) == LONGEST_ANSWER


def test_lead_counts_the_verdicts(experiment, outcomes):
    lead = build_document(experiment, outcomes).lead
    assert lead == "10 statements tested: 1 supported, 7 contradicted and 2 inconclusive."


def test_every_finding_has_a_row_with_its_first_estimate(experiment, outcomes):
    document = build_document(experiment, outcomes)
    findings = [f for outcome in outcomes if outcome.result for f in outcome.result.findings]
    assert len(document.verdicts) == len(findings)
    row = next(row for row in document.verdicts if row.hypothesis.endswith("supported holds"))
    assert (row.network, row.sign, row.section) == ("plain34", "✓", "section-1")
    assert row.measure == "ratio of curve-supported"
    assert row.number == "54.3\u00a0% (95\u00a0% interval 51.2 to 57.9)"


def test_sections_keep_their_order_and_say_why_they_have_no_result(experiment, outcomes):
    sections = build_document(experiment, outcomes).sections
    assert [section.heading[:3] for section in sections] == [
        "1. ",
        "2. ",
        "3. ",
        "4. ",
        "5. ",
        "6. ",
    ]
    assert sections[4].notice == "Not applicable to this experiment: no residual additions"
    assert sections[5].notice == "This section failed: ValueError: it broke"


def test_figures_and_tables_are_numbered_through_the_report(experiment, outcomes):
    document = build_document(experiment, outcomes)
    figures = [figure.label for section in document.sections for figure in section.figures]
    assert figures == [f"Figure {number}" for number in range(1, 8)]
    tables = [table.label for section in document.sections for table in section.tables]
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


def test_document_stands_without_any_finding(experiment):
    outcome = Outcome("skip_carry", "Skip connections", "?", not_applicable="nothing recorded")
    document = build_document(experiment, [outcome])
    assert document.verdicts == ()
    assert document.answer == ()
    assert document.lead.startswith("No hypothesis could be tested")


def test_date_is_that_of_the_experiment(experiment, outcomes):
    document = build_document(experiment, outcomes)
    assert "recorded 3 May 2025, 14:05 UTC" in document.subtitle


def test_table_without_rows_says_so():
    part = table_part(Table("t", "Empty", pd.DataFrame({"layer": []})), "Table 1")
    assert (part.columns, part.rows) == (("layer",), ())
    assert part.note == "No rows: there was nothing to list."
    assert table_part(Table("t", "Bare", pd.DataFrame()), "Table 1").rows == ()
