"""HTML and PDF have the same content, handle hostile names, and are reproducible."""

import re
from io import BytesIO

import pytest
from pypdf import PdfReader

from analyses.registry import Outcome
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import RunWriter
from reports.document.builder import build_document
from reports.html.renderer import render_html
from reports.pdf.renderer import render_pdf


def without_spaces(text: str) -> str:
    """`text` without white space: a PDF does not record why a line was broken."""
    return re.sub(r"[\s\u200b\x00]+", "", text)


def pdf_text(content: bytes) -> str:
    pages = [page.extract_text() for page in PdfReader(BytesIO(content)).pages]
    # The header and footer come between the two halves of a text that a page break divides.
    return "\n".join(
        line for page in pages for line in page.splitlines() if not line.startswith("gradflow 0")
    )


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    return build_document(experiment, outcomes)


# Formats that show whole reports: the fixture `texts` has the text of each.
WHOLE = ("html", "pdf")


@pytest.fixture(scope="module")
def texts(document, page_of):
    page = page_of(render_html(document))
    return {
        "html": without_spaces(page.text),
        "pdf": without_spaces(pdf_text(render_pdf(document))),
    }


@pytest.mark.parametrize("name", WHOLE)
def test_both_formats_hold_every_finding_figure_and_section(document, texts, name):
    text = texts[name]
    short = [s for s in document.sections if "script" not in s.summary]
    expected = [document.question, document.verdict_counts, *document.references]
    expected += [part.text for part in document.methods]
    expected += [sentence.text for sentence in document.answer]
    for section in short:
        expected += [section.heading, section.summary, section.notice, section.method]
        expected += [section.command]
        for claim in section.claims:
            expected += [claim.heading, *claim.threshold, *claim.contradicted_by]
            expected += [*claim.next_steps, *claim.caveats]
            for finding in claim.findings:
                expected += [finding.line.signed, claim.together or finding.meaning]
                expected += [row.number for row in finding.estimates]
        for figure in section.all_figures:
            expected += [f"{figure.label}. {figure.title}", figure.caption, figure.note]
        for table in section.all_tables:
            expected += [table.title, *table.columns, *table.rows[-1], table.note]
    missing = [part for part in expected if without_spaces(part) not in text]
    assert missing == []


@pytest.mark.parametrize("name", WHOLE)
def test_hostile_names_are_shown_as_they_are(document, texts, name):
    hostile = document.sections[2]
    for claim in hostile.claims:
        assert without_spaces(claim.heading) in texts[name]
    assert without_spaces(hostile.heading) in texts[name]


def test_figures_are_in_both_formats(document, page_of):
    drawn = [f for section in document.sections for f in section.all_figures if f.picture]
    page = page_of(render_html(document))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [figure.alt for figure in drawn]
    text = without_spaces(pdf_text(render_pdf(document)))
    figures = [figure for section in document.sections for figure in section.all_figures]
    assert len(figures) == 7
    assert all(without_spaces(f"{figure.label}. {figure.title}") in text for figure in figures)


def test_both_formats_are_reproducible(experiment, outcomes):
    first, second = (build_document(experiment, outcomes) for _ in range(2))
    assert render_html(first) == render_html(second)
    assert render_pdf(first) == render_pdf(second)


def test_a_run_without_data_gives_a_report(tmp_path, page_of):
    RunWriter(tmp_path / "mine", {"created": "unknown"})
    failed = Outcome("x", "X", "Why?", failure="ValueError: broken")
    document = build_document(open_experiment(tmp_path / "mine"), [failed])
    assert "still running" in page_of(render_html(document)).text
    assert "stillrunning" in without_spaces(pdf_text(render_pdf(document)))
    assert render_pdf(document) == render_pdf(document)
