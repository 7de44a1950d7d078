"""The PDF as its readers meet it: on paper, in a search, and read out by a machine."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import typst
from PIL import Image
from pypdf import PdfReader

from analyses.registry import Outcome
from analyses.result import AnalysisResult
from gradflow.errors import ConfigurationError
from gradflow.runs.reader import open_experiment
from reports.document import build_document
from reports.letters import printable
from reports.parts import Picture
from reports.pdf import A4, LETTER, render_pdf

MARGIN = 20 / 25.4 * 72  # points


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    """The shared outcomes, with a picture that opens the report."""
    opening = replace(outcomes[0].result.figures[0], key="overview", alt="alt of the overview")
    result = AnalysisResult("", (), (opening,), (), "", ())
    return build_document(experiment, [*outcomes, Outcome("overview", "", "", result)])


@pytest.fixture(scope="module")
def content(document) -> bytes:
    return render_pdf(document)


@pytest.fixture(scope="module")
def reader(content) -> PdfReader:
    return PdfReader(BytesIO(content))


@pytest.fixture(scope="module")
def pages(reader) -> list[str]:
    return [page.extract_text() for page in reader.pages]


def elements(reader: PdfReader) -> list[dict]:
    """The elements of the structure tree, in reading order."""
    return list(_below(reader.trailer["/Root"]["/StructTreeRoot"]["/K"]))


def _below(node) -> Iterator[dict]:
    node = node.get_object()
    if isinstance(node, list):
        for kid in node:
            yield from _below(kid)
    elif isinstance(node, dict):
        if "/S" in node:
            yield node
        if "/K" in node:
            yield from _below(node["/K"])


def attributes(element: dict) -> dict:
    """The attributes of an element, whichever of its owners they belong to."""
    given = element.get("/A", [])
    merged: dict = {}
    for one in given if isinstance(given, list) else [given]:
        merged |= one.get_object()
    return merged


def words(text: str) -> str:
    return " ".join(text.split())


def drawn(document) -> list:
    own = [figure for section in document.sections for figure in section.all_figures]
    return [figure for figure in [document.opening, *own] if figure.picture]


def front(document, **changes):
    """The document without its sections and what links to them."""
    return replace(document, answer=(), cards=(), verdicts=(), sections=(), **changes)


def with_picture(document, width: float, height: float):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt"/>'
    picture = Picture(svg.encode(), "svg", width, height)
    return front(document, opening=replace(document.opening, picture=picture))


def box_of_opening(document) -> tuple[float, float]:
    reader = PdfReader(BytesIO(render_pdf(document)))
    (box,) = (attributes(e)["/BBox"] for e in elements(reader) if e["/S"] == "/Figure")
    return float(box[2] - box[0]), float(box[3] - box[1])


@pytest.mark.parametrize(("name", "paper"), [("a4", A4), ("letter", LETTER), ("us-letter", LETTER)])
def test_pages_have_the_size_asked_for(document, name, paper):
    reader = PdfReader(BytesIO(render_pdf(front(document), name)))
    for page in reader.pages:
        assert float(page.mediabox.width) == pytest.approx(paper.width, abs=0.1)
        assert float(page.mediabox.height) == pytest.approx(paper.height, abs=0.1)


def test_unknown_paper_is_an_error_that_names_the_choices(document):
    with pytest.raises(ConfigurationError, match=r"'a5' is unknown: choose a4 or letter$"):
        render_pdf(document, "a5")


def test_file_declares_that_it_is_accessible(reader):
    catalog = reader.trailer["/Root"]
    metadata = catalog["/Metadata"].get_object().get_data().decode()
    assert "<pdfuaid:part>1</pdfuaid:part>" in metadata
    assert catalog["/MarkInfo"]["/Marked"].value is True
    assert catalog["/Lang"] == "en"
    assert catalog["/ViewerPreferences"]["/DisplayDocTitle"].value is True
    assert reader.metadata.title == "Gradient flow in plain34 and resnet34"


def test_file_is_dated_by_the_run(reader):
    assert reader.metadata["/CreationDate"].startswith("D:20250503140509")


def test_every_picture_has_its_alternative_text_and_caption(document, reader):
    figures = [element for element in elements(reader) if element["/S"] == "/Figure"]
    assert [figure["/Alt"] for figure in figures] == [figure.alt for figure in drawn(document)]
    captions = [element for element in elements(reader) if element["/S"] == "/Caption"]
    assert len(captions) >= len(figures)


def test_every_table_has_heads_that_name_their_columns(reader):
    tables = [element for element in elements(reader) if element["/S"] == "/Table"]
    assert len(tables) > 20
    for table in tables:
        heads = [attributes(e) for e in _below(table["/K"]) if e["/S"] == "/TH"]
        assert heads
        assert all(head["/Scope"] == "/Column" for head in heads)


def test_headings_never_skip_a_level(reader):
    levels = [int(e["/S"][2]) for e in elements(reader) if re.fullmatch(r"/H[1-6]", e["/S"])]
    assert levels[0] == 1
    assert set(levels) == {1, 2}
    assert [element["/S"] for element in elements(reader)].count("/Title") == 1


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
        title for title in titles[3:-4] if len(title) < 30
    ]
    assert titles[-4:] == ["Methods", "Configuration", "Glossary", "References"]
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


def test_no_heading_ends_a_page(document, reader, pages):
    claims = [claim.heading for section in document.sections for claim in section.claims]
    glossary = [part.heading for part in document.glossary]
    headings = {words(title) for title in [*claims, *glossary, *(t for _, t in chapters(reader))]}
    for page in pages:
        lines = [words(line) for line in page.splitlines() if not line.startswith("gradflow 0")]
        assert lines[-1] not in headings


def test_first_page_holds_question_answer_and_cards(document, pages):
    first = words(pages[0])
    expected = [document.title, document.question, document.lead]
    expected += [sentence.text for sentence in document.answer]
    expected += [f"{sentence.sign}\u00a0{sentence.verdict}" for sentence in document.answer]
    for card in document.cards:
        expected.append(card.statement)
        expected += [f"{line.sign}\u00a0{line.verdict} · {line.network}" for line in card.lines]
    assert [text for text in expected if words(text) not in first] == []


def test_warnings_stand_on_the_first_page(document):
    warned = front(document, warnings=("The run x failed.", "The run y failed."))
    first = PdfReader(BytesIO(render_pdf(warned))).pages[0].extract_text()
    assert words("Note: The run x failed. Note: The run y failed.") in words(first)


def test_verdict_table_names_a_statement_once_and_every_network(document, pages):
    table = words(" ".join(pages)).partition("Statement Network Verdict Number Page")[2]
    table = table.partition("1. Comparison What happened?")[0]
    assert table.count("Gradients vanish") == 1
    for line in document.verdicts[3].lines:
        assert f"{line.network} {line.sign} {line.verdict} {line.measure}" in words(table)


def test_pictures_keep_their_size_and_stay_within_the_page(document, reader):
    boxes = [attributes(e)["/BBox"] for e in elements(reader) if e["/S"] == "/Figure"]
    for figure, (left, low, right, high) in zip(drawn(document), boxes, strict=True):
        assert right - left >= 0.75 * figure.picture.width
        assert left >= MARGIN - 1
        assert right <= A4.width - MARGIN + 1
        assert (right - left) / (high - low) == pytest.approx(
            figure.picture.width / figure.picture.height, rel=0.01
        )
        assert low > 0


@pytest.mark.parametrize("paper", ["a4", "letter"])
def test_real_width_of_figures_is_hardly_reduced(paper):
    # Figures are drawn 6.7 inches wide, and somewhat wider with their labels.
    assert {"a4": A4, "letter": LETTER}[paper].column / (6.9 * 72) > 0.95


def test_a_picture_too_wide_for_the_page_is_turned_on_its_side(document):
    width, height = box_of_opening(with_picture(document, 700, 300))
    assert width == pytest.approx(300 * height / 700, rel=0.01)
    assert A4.column < height < A4.height - 2 * MARGIN


@pytest.mark.parametrize("caption", ["Short.", "A long caption, too long for one line. " * 12])
def test_a_tall_picture_fits_on_a_page_with_its_caption(document, caption):
    tall = with_picture(document, 400, 800)
    tall = replace(tall, opening=replace(tall.opening, caption=caption))
    _, height = box_of_opening(tall)
    assert height >= 0.7 * 800
    pages = PdfReader(BytesIO(render_pdf(tall))).pages
    (page,) = (page for page in pages if "Figure title curves" in page.extract_text())
    assert words(caption) in words(page.extract_text())
    assert lowest_text(page) > 19 / 25.4 * 72


def lowest_text(page) -> float:
    """How far above the page's foot the lowest text above its last line stands, in points."""
    heights = set()

    def visit(text, current, matrix, *_):
        if text.strip():
            heights.add(round(matrix[5] * current[3] + current[5]))

    page.extract_text(visitor_text=visit)
    return sorted(heights)[1]


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
def test_nothing_leaves_the_column(document, monkeypatch, name, paper):
    assert rightmost_ink(document, name, monkeypatch) < paper.width - MARGIN + 3


def test_that_check_sees_words_that_do_not_break(document, monkeypatch):
    monkeypatch.setattr("reports.letters.breakable", lambda text, longest: text)
    assert rightmost_ink(document, "a4", monkeypatch) > A4.width - MARGIN / 2


def test_names_can_be_searched_and_copied(document):
    names = ("layer4.2.downsample.0", "classification_accuracy", "stage12.block3.convolution1")
    summary = "In the text stand " + ", ".join(names) + "."
    section = replace(document.sections[0], summary=summary, claims=(), figures=(), tables=())
    reader = PdfReader(BytesIO(render_pdf(replace(front(document), sections=(section,)))))
    text = words(" ".join(page.extract_text() for page in reader.pages))
    assert [name for name in names if name not in text] == []


def test_no_hidden_letters_are_copied(pages):
    assert not set("\u200b\u200c\ufffc\u00ad") & set("".join(pages))


def test_letters_without_a_glyph_stand_as_numbers_and_the_page_says_so(document):
    strange = "猫 \U0001f9ec \u202eevil \ud800 \x07 שלום قطة 54.3"
    section = replace(document.sections[0], heading=strange, summary=strange)
    content = render_pdf(replace(front(document, question=strange), sections=(section,)))
    reader = PdfReader(BytesIO(content))
    text = words(reader.pages[0].extract_text())
    for number in ("[U+732B]", "[U+1F9EC]", "[U+202E]evil", "[U+D800]", "[U+0007]"):
        assert number in text
    assert "stand as their Unicode numbers" in text
    assert b"pdfuaid" in content


def test_an_ordinary_report_says_nothing_of_letters(pages):
    assert "Unicode" not in pages[0]


def test_every_printable_letter_can_be_shown(document):
    letters = [chr(n) for n in range(0x20, 0x20000) if printable(chr(n)) == chr(n)]
    content = render_pdf(front(document, subtitle=" ".join(letters), lead="".join(letters)))
    assert b"pdfuaid" in content


def test_a_text_that_typst_refuses_costs_the_declaration_not_the_report(document, monkeypatch):
    monkeypatch.setattr("reports.letters.printable", lambda text: text)
    content = render_pdf(front(document, lead="猫"))
    text = words(PdfReader(BytesIO(content)).pages[0].extract_text())
    assert "This file does not declare PDF/UA-1: PDF/UA-1 error: the text" in text
    assert b"pdfuaid" not in content


def test_a_broken_drawing_says_so_in_its_place(pages):
    text = words(" ".join(pages))
    assert "This figure could not be drawn: ZeroDivisionError: no epochs to draw" in text
    assert "Broken title. Broken caption." in text


def test_claim_tells_where_its_evidence_stands(document, pages):
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


def test_report_without_anything_to_show_stands(document):
    bare = front(document, opening=None, methods=(), configuration=(), glossary=(), references=())

    assert document.lead in words(PdfReader(BytesIO(render_pdf(bare))).pages[0].extract_text())


def test_picture_of_pixels_is_embedded(document):
    content = BytesIO()
    Image.new("RGB", (20, 10), "red").save(content, "png")
    picture = Picture(content.getvalue(), "png", 400, 200)
    figure = replace(document.opening, picture=picture)
    reader = PdfReader(BytesIO(render_pdf(front(document, opening=figure))))
    assert sum(len(page.images) for page in reader.pages) == 1
