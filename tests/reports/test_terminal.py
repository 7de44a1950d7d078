"""Terminal output: 80 columns, each statement once, no control characters from names."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from analyses.result import Verdict
from reports.document.builder import build_document
from reports.elements import VerdictGroup
from reports.terminal import answer_text, sections_text


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    return build_document(experiment, outcomes)


def console(width=80, **options):
    return Console(file=StringIO(), width=width, highlight=False, **options)


def in_a_terminal():
    return console(force_terminal=True, color_system="standard")


@pytest.mark.parametrize("text", [answer_text, sections_text])
@pytest.mark.parametrize("width", [80, 50])
def test_no_line_is_wider_than_the_terminal(document, text, width):
    lines = text(document, console(width)).splitlines()
    assert lines
    assert max(map(len, lines)) <= width


def test_the_width_is_at_most_80_columns(document, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert max(map(len, answer_text(document).splitlines())) <= 80


def test_a_statement_is_printed_once_above_its_networks(document):
    text = answer_text(document, console())
    assert text.count("Gradients vanish\n  ? can't tell (inconclusive): plain34, resnet34\n") == 1


def test_networks_are_grouped_by_verdict(document):
    first, second = document.verdicts[3].lines
    card = replace(
        document.verdicts[3],
        lines=(first, replace(second, verdict=Verdict.SUPPORTED, word="yes", sign="!")),
    )
    text = answer_text(
        replace(document, verdicts_by_analysis=(VerdictGroup("One", (card,)),)), console()
    )
    assert "  ? can't tell (inconclusive): plain34\n  ! yes (supported): resnet34\n" in text


def test_the_answer_opens_with_question_warnings_and_sentences(document):
    text = answer_text(replace(document, warnings=("The run failed.",)), console())
    joined = " ".join(text.split())
    parts = [document.question, "Warning: The run failed.", *(s.text for s in document.answer)]
    places = [joined.index(" ".join(part.split())) for part in (*parts, document.verdict_counts)]
    assert places == sorted(places)


def test_a_section_is_printed_completely(document):
    section = document.sections[1]
    text = sections_text(replace(document, sections=(section,)), console(width=200))
    for claim in section.claims:
        expected = [claim.heading, *claim.threshold, *claim.contradicted_by, *claim.caveats]
        expected += [one.meaning for one in claim.findings]
        expected += [row.number for one in claim.findings for row in one.estimates]
        for words in expected:
            assert words in text
    for table in section.all_tables:
        assert table.label in text
        for name in table.columns:
            assert name in text
    assert section.all_figures[0].title in text
    assert "Figures are drawn with --format html or pdf." in text


def test_sections_without_a_result_say_why(document):
    text = sections_text(document, console())
    assert "No residual additions" in text
    assert "This section failed: ValueError: it broke" in text


def test_a_terminal_gets_colors_and_a_file_none(document):
    assert "\x1b[" in answer_text(document, in_a_terminal())
    assert "\x1b" not in answer_text(document, console())


@pytest.mark.parametrize("text", [answer_text, sections_text])
def test_a_name_cannot_move_the_cursor_or_be_read_as_markup(document, text):
    evil = "\x1b[2J\x07[red]x[/red] \u202e\r"
    said = text(
        replace(document, question=evil, subtitle=evil, warnings=(evil,), verdict_counts=evil),
        console(),
    )
    assert not set("\x1b\x07\r\u202e") & set(said)
    assert "[red]x[/red]" in said
