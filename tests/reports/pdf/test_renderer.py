"""The PDF on paper and in searches: layout, texts and properties."""

import re
import shutil
import tempfile
import time
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import typst
from PIL import Image
from pypdf import PdfReader

from analyses.showing.drawing import Picture
from gradflow.errors import ConfigurationError, RunError
from gradflow.runs.reading.run import open_experiment
from reports.document.builder import build_document
from reports.pdf import fonts
from reports.pdf.fonts import replace_unprintable
from reports.pdf.renderer import A4, LETTER, render_pdf

MARGIN = 20 / 25.4 * 72  # points


@pytest.fixture(scope="module")
def document(document_with_overview):
    return document_with_overview


@pytest.fixture(scope="module")
def reader(report_as_pdf) -> PdfReader:
    return PdfReader(BytesIO(report_as_pdf))


@pytest.fixture(scope="module")
def pages(reader) -> list[str]:
    return [page.extract_text() for page in reader.pages]


def words(text: str) -> str:
    return " ".join(text.split())


def front(document, **changes):
    """The document without its sections and the links to them."""
    return replace(document, answer=(), cards=(), verdicts_by_analysis=(), sections=(), **changes)


@pytest.mark.parametrize(("name", "paper"), [("a4", A4), ("letter", LETTER), ("us-letter", LETTER)])
def test_pages_have_the_size_asked_for(document, name, paper):
    reader = PdfReader(BytesIO(render_pdf(front(document), name)))
    for page in reader.pages:
        assert float(page.mediabox.width) == pytest.approx(paper.width, abs=0.1)
        assert float(page.mediabox.height) == pytest.approx(paper.height, abs=0.1)


def test_unknown_paper_is_an_error_that_names_the_choices(document):
    with pytest.raises(ConfigurationError, match=r"'a5' is unknown: choose a4 or letter$"):
        render_pdf(document, "a5")


def test_file_is_dated_by_the_run(reader):
    assert reader.metadata["/CreationDate"].startswith("D:20250503140509")


def chapters(reader: PdfReader) -> list[tuple[int, str]]:
    """The page, counted from 0, and the title of each heading of the first level."""
    return [
        (reader.get_destination_page_number(item), item.title)
        for item in reader.outline
        if not isinstance(item, list)
    ]


def test_outline_and_contents_name_the_sections_and_their_pages(document, reader, pages):
    found = chapters(reader)
    titles = [title for _, title in found]
    assert titles[:3] == ["The answer", "Contents", "All verdicts"]
    assert [s.heading for s in document.sections if len(s.heading) < 30] == [
        title for title in titles[3:-5] if len(title) < 30
    ]
    assert titles[-5:] == [
        "What was not asked",
        "Methods",
        "Configuration",
        "Glossary",
        "References",
    ]
    contents = words(" ".join(pages[:3]))
    for page, title in found[2:]:
        assert re.search(rf"{re.escape(words(title))}[ .]*{page + 1}\b", contents)


def test_running_head_names_the_section_of_its_page(reader, pages):
    begun = chapters(reader)
    for number, page in enumerate(pages[1:], start=1):
        current = [title for place, title in begun if place <= number][-1]
        head = page.splitlines()[0]
        assert head.startswith(current)
        assert f"{number + 1} of {len(pages)}" in page


def test_no_heading_or_table_title_ends_a_page(document, reader, pages):
    claims = [claim.heading for section in document.sections for claim in section.claims]
    glossary = [part.heading for part in document.glossary]
    tables = [t for section in document.sections for t in section.all_tables]
    titles = [f"{table.label}. {table.title}." for table in [*tables, *document.configuration]]
    begun = [title for _, title in chapters(reader)]
    headings = {words(heading) for heading in [*claims, *glossary, *titles, *begun]}
    for page in pages:
        lines = [words(line) for line in page.splitlines() if not line.startswith("gradflow 0")]
        assert lines[-1] not in headings


def test_first_page_holds_question_answer_and_cards(document, pages):
    first = words(pages[0])
    expected = [document.title, document.question, document.verdict_counts]
    expected += [sentence.text for sentence in document.answer]
    expected += [sentence.signed for sentence in document.answer]
    for card in document.cards:
        expected.append(card.statement)
        expected += [f"{line.signed} ({line.verdict}) · {line.network}" for line in card.lines]
    assert [text for text in expected if words(text) not in first] == []


def test_warnings_stand_on_the_first_page(document):
    warned = front(document, warnings=("The run x failed.", "The run y failed."))
    first = PdfReader(BytesIO(render_pdf(warned))).pages[0].extract_text()
    assert words("Note: The run x failed. Note: The run y failed.") in words(first)


def test_verdict_table_names_a_statement_once_and_every_network(document, pages):
    table = words(" ".join(pages)).partition("Claim Network Found Number Page")[2]
    table = table.partition("1. Comparison What happened?")[0]
    assert table.count("Gradients vanish") == 1
    for line in document.verdicts[3].lines:
        assert f"{line.network} {line.signed} ({line.verdict}) {line.measure}" in words(table)


def rightmost_ink(document, paper, monkeypatch) -> float:
    """How far right any page is printed, in points."""
    compiled, images = typst.compile, []

    def compile_twice(*arguments, **options):
        images.extend(compiled(*arguments, **{**options, "format": "png", "ppi": 48}))
        return compiled(*arguments, **options)

    monkeypatch.setattr(typst, "compile", compile_twice)
    render_pdf(document, paper)
    inks = [np.asarray(Image.open(BytesIO(image)).convert("L")) < 200 for image in images]
    return max(np.flatnonzero(ink.any(axis=0)).max() for ink in inks) / 48 * 72


@pytest.mark.parametrize(("name", "paper"), [("a4", A4), ("letter", LETTER)])
def test_nothing_is_printed_outside_the_column(document, monkeypatch, name, paper):
    assert rightmost_ink(document, name, monkeypatch) < paper.width - MARGIN + 3


def test_the_column_check_detects_words_that_do_not_break(document, monkeypatch):
    monkeypatch.setattr("reports.pdf.fonts.add_breaks", lambda text, longest: text)
    assert rightmost_ink(document, "a4", monkeypatch) > A4.width - MARGIN / 2


def test_names_can_be_searched_and_copied(document):
    names = ("layer4.2.downsample.0", "classification_accuracy", "stage12.block3.convolution1")
    summary = "In the text stand " + ", ".join(names) + "."
    section = replace(document.sections[0], summary=summary, claims=(), figures=(), tables=())
    reader = PdfReader(BytesIO(render_pdf(replace(front(document), sections=(section,)))))
    text = words(" ".join(page.extract_text() for page in reader.pages))
    assert [name for name in names if name not in text] == []


def test_no_hidden_characters_are_copied(pages):
    assert not set("\u200b\u200c\ufffc\u00ad") & set("".join(pages))


def test_replaced_characters_are_explained_on_the_first_page(document):
    strange = "猫 \U0001f9ec \u202eevil \ud800 \x07 שלום قطة 54.3"
    section = replace(document.sections[0], heading=strange, summary=strange)
    content = render_pdf(replace(front(document, question=strange), sections=(section,)))
    reader = PdfReader(BytesIO(content))
    text = words(reader.pages[0].extract_text())
    for number in ("[U+732B]", "[U+1F9EC]", "[U+202E]evil", "[U+D800]", "[U+0007]"):
        assert number in text
    assert "are shown as their Unicode numbers" in text
    assert b"pdfuaid" in content


@pytest.mark.parametrize("letter", ["猫", "\u202e", "\x07"])
def test_a_single_replaced_character_is_explained(document, letter):
    content = render_pdf(front(document, references=(f"[1] Title{letter}",)))
    first = PdfReader(BytesIO(content)).pages[0].extract_text()
    assert "are shown as their Unicode numbers" in words(first)


def test_an_ordinary_report_does_not_mention_replaced_characters(pages):
    assert "Unicode" not in pages[0]


def test_every_printable_character_can_be_shown(document):
    letters = [chr(n) for n in range(0x20, 0x20000) if replace_unprintable(chr(n)) == chr(n)]
    content = render_pdf(
        front(document, subtitle=" ".join(letters), verdict_counts="".join(letters))
    )
    assert b"pdfuaid" in content


def test_a_text_that_typst_refuses_removes_only_the_pdf_ua_declaration(document, monkeypatch):
    monkeypatch.setattr("reports.pdf.fonts.replace_unprintable", lambda text: text)
    content = render_pdf(front(document, verdict_counts="猫"))
    text = words(PdfReader(BytesIO(content)).pages[0].extract_text())
    assert "This file does not declare PDF/UA-1: PDF/UA-1 error: the text" in text
    assert b"pdfuaid" not in content


def test_a_broken_drawing_says_so_in_its_place(pages):
    text = words(" ".join(pages))
    assert "This figure could not be drawn: ZeroDivisionError: no epochs to draw" in text
    assert "Broken title. Broken caption." in text


def test_claim_names_the_labels_of_its_evidence(document, pages):
    text = words(" ".join(pages))
    assert "Shown in Figure 2." in text
    assert "Shown in See also Figure 2." in text


def test_bytes_depend_on_neither_folder_nor_time_zone(
    experiment_folder, outcomes, tmp_path, monkeypatch
):
    contents = []
    for zone in ("UTC", "Asia/Tokyo"):
        home, scratch = tmp_path / zone, tmp_path / f"scratch {zone}"
        scratch.mkdir(parents=True)
        shutil.copytree(experiment_folder, home / experiment_folder.name)
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        document = build_document(open_experiment(home / experiment_folder.name), outcomes)
        contents.append(render_pdf(document))
        assert list(scratch.iterdir()) == []
    monkeypatch.undo()
    time.tzset()
    assert contents[0] == contents[1]


def test_unknown_date_is_left_out(document):
    reader = PdfReader(BytesIO(render_pdf(front(document, created=None))))
    assert "/CreationDate" not in reader.metadata


def test_a_report_needs_no_content(document):
    bare = front(
        document, overview_figure=None, methods=(), configuration=(), glossary=(), references=()
    )

    assert document.verdict_counts in words(
        PdfReader(BytesIO(render_pdf(bare))).pages[0].extract_text()
    )


def test_picture_of_pixels_is_embedded(document):
    content = BytesIO()
    Image.new("RGB", (20, 10), "red").save(content, "png")
    picture = Picture(content.getvalue(), "png", 400, 200)
    figure = replace(document.overview_figure, picture=picture)
    reader = PdfReader(BytesIO(render_pdf(front(document, overview_figure=figure))))
    assert sum(len(page.images) for page in reader.pages) == 1


def test_a_layout_error_gives_one_error_sentence(document, monkeypatch):
    endless = replace(document, question="a." * 1000)
    assert render_pdf(endless)
    monkeypatch.setattr(fonts, "_MOST_BREAKS", 1000)
    with pytest.raises(RunError, match=r"cannot be laid out \(maximum grouping depth exceeded\)"):
        render_pdf(endless)
