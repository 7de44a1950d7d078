"""A whole report in another language: the same numbers, in every format, beside other reports."""

import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from pypdf import PdfReader

from gradflow.errors import ConfigurationError
from reports import building
from reports.building import make_report, report_on
from reports.formats import FORMATS
from reports.languages.translation import in_language
from reports.terminal import answer_text, sections_text

ENGLISH_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
INDONESIAN_NUMBER = re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?|\d+(?:,\d+)?")


def first_page(document):
    return [
        document.question,
        document.verdict_counts,
        document.certainty,
        document.open_question,
        *document.warnings,
        *(text for one in document.answer for text in (one.text, one.hypothesis)),
        *(one.statement for one in document.cards),
        *(text for one in document.cards for line in one.lines for text in (
            line.network, line.measure, line.number,
        )),
    ]  # fmt: skip


def numbers(text, language):
    if language == "id":
        swap = str.maketrans(",.", ".,")
        return sorted(one.translate(swap) for one in INDONESIAN_NUMBER.findall(text))
    return sorted(ENGLISH_NUMBER.findall(text))


@pytest.fixture(scope="module")
def reports(experiment, outcomes):
    return {
        language: report_on(experiment, outcomes, language=language) for language in ("en", "id")
    }


@pytest.fixture(scope="module")
def indonesian(reports):
    return reports["id"].shown


def test_both_first_pages_have_the_same_numbers(reports, indonesian):
    pages = [first_page(one) for one in (reports["en"].shown, indonesian)]
    # The texts of made-up findings are in no catalogue.
    told = [pair for pair in zip(*pages, strict=True) if pair[0] != pair[1]]
    assert len(told) > 5
    for english, other in told:
        assert numbers(english, "en") == numbers(other, "id"), (english, other)


def test_anchors_names_and_commands_are_the_same(reports, indonesian):
    english = reports["en"].shown
    for one, other in zip(english.sections, indonesian.sections, strict=True):
        assert (one.anchor, one.command) == (other.anchor, other.command)
        for claim, told in zip(one.claims, other.claims, strict=True):
            assert claim.anchor == told.anchor
            names = [[found.line.network for found in part.findings] for part in (claim, told)]
            assert [name for name in names[0] if name != "all networks"] == [
                name.replace("semua jaringan", "all networks")
                for name in names[1]
                if name != "semua jaringan"
            ]


def test_the_page_says_its_language_and_its_fixed_texts(reports, page_of):
    page = page_of(FORMATS["html"].render(reports["id"]))
    assert ("html", {"lang": "id"}) in page.tags
    for text in ("Yang diklaim, dan yang ditemukan", "Daftar isi", "Glosarium", "Gambar 1."):
        assert text in page.text
    for text in ("What was claimed", "Contents", "Glossary", "Figure 1."):
        assert text not in page.text
    targets = {
        given["href"][1:] for tag, given in page.tags if (given.get("href") or "")[:1] == "#"
    }
    assert targets <= {given.get("id") for _, given in page.tags}


def test_the_pdf_says_its_language(reports):
    pdf = PdfReader(io.BytesIO(FORMATS["pdf"].render(reports["id"])))
    assert pdf.trailer["/Root"]["/Lang"] == "id"
    text = "".join(page.extract_text() for page in pdf.pages)
    assert "Yang diklaim, dan yang ditemukan" in text
    assert "What was claimed" not in text
    assert re.search(r"1 dari \d+", text)


def test_the_terminal_and_the_comment_say_it_too(reports, indonesian):
    for text in (
        answer_text(indonesian),
        sections_text(indonesian),
        FORMATS["md"].render(reports["id"]).decode(),
    ):
        assert re.search(r"didukung|Temuan|temuan", text)
        assert "Claim:" not in text
        assert "Found:" not in text


def test_json_is_the_same_in_every_language(reports):
    both = [json.loads(FORMATS["json"].render(one)) for one in reports.values()]
    assert both[0] == both[1]


def test_reports_in_two_languages_do_not_disturb_one_another(reports):
    alone = {name: FORMATS["html"].render(one) for name, one in reports.items()}
    with ThreadPoolExecutor(4) as threads:
        rendered = [
            (name, threads.submit(FORMATS["html"].render, reports[name]))
            for name in ("en", "id") * 4
        ]
        assert all(one.result() == alone[name] for name, one in rendered)


def test_english_is_the_document_itself(reports):
    document = reports["en"].document
    assert in_language(document, "en") is document
    assert reports["en"].shown is document


def test_an_unknown_language_is_refused_before_the_analyses(experiment, monkeypatch):
    monkeypatch.setattr(building, "run_all", lambda *_: pytest.fail("the analyses ran"))
    with pytest.raises(ConfigurationError, match="choose from"):
        make_report(experiment, language="xx")
