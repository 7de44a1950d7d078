"""The structure of the PDF for screen readers: tags, alternative texts and figure sizes."""

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import pytest
from pypdf import PdfReader

from analyses.showing.drawing import Picture
from reports.pdf.renderer import A4, render_pdf

MARGIN = 20 / 25.4 * 72  # points


@pytest.fixture(scope="module")
def document(document_with_overview):
    return document_with_overview


@pytest.fixture(scope="module")
def reader(report_as_pdf) -> PdfReader:
    return PdfReader(BytesIO(report_as_pdf))


def words(text: str) -> str:
    return " ".join(text.split())


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
    """The attributes of an element, of all its attribute owners."""
    given = element.get("/A", [])
    merged: dict = {}
    for one in given if isinstance(given, list) else [given]:
        merged |= one.get_object()
    return merged


def drawn(document) -> list:
    own = [figure for section in document.sections for figure in section.all_figures]
    return [figure for figure in [document.overview_figure, *own] if figure.picture]


def with_picture(document, width: float, height: float):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt"/>'
    picture = Picture(svg.encode(), "svg", width, height)
    overview_figure = replace(document.overview_figure, picture=picture)
    return replace(
        document,
        answer=(),
        cards=(),
        verdicts_by_analysis=(),
        sections=(),
        overview_figure=overview_figure,
    )


def box_of_opening(document, paper: str = "a4") -> tuple[float, float]:
    reader = PdfReader(BytesIO(render_pdf(document, paper)))
    (box,) = (attributes(e)["/BBox"] for e in elements(reader) if e["/S"] == "/Figure")
    return float(box[2] - box[0]), float(box[3] - box[1])


def test_file_declares_that_it_is_accessible(reader):
    catalog = reader.trailer["/Root"]
    metadata = catalog["/Metadata"].get_object().get_data().decode()
    assert "<pdfuaid:part>1</pdfuaid:part>" in metadata
    assert catalog["/MarkInfo"]["/Marked"].value is True
    assert catalog["/Lang"] == "en"
    assert catalog["/ViewerPreferences"]["/DisplayDocTitle"].value is True
    assert reader.metadata.title == "Gradient flow in plain34 and resnet34"


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


def test_pictures_keep_their_size_and_fit_the_page(document, reader):
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
def test_figures_as_wide_as_ours_are_hardly_reduced(document, paper):
    # They are drawn 6.7 inches wide, and somewhat wider with their labels.
    width, _ = box_of_opening(with_picture(document, 6.9 * 72, 300), paper)
    # The overview figure takes what the first page leaves it.
    assert 0.85 * 0.95 * 6.9 * 72 < width < 0.95 * 6.9 * 72 + 1


@pytest.mark.parametrize("words_before", [0, 800])
def test_the_opening_figure_stands_on_the_first_page(document, words_before):
    long = with_picture(replace(document, certainty="word " * words_before), 400, 300)
    first = PdfReader(BytesIO(render_pdf(long))).pages[0].extract_text()
    assert "Figure title curves" in first


def test_a_picture_too_wide_for_the_page_is_turned_on_its_side(document):
    width, height = box_of_opening(with_picture(document, 700, 300))
    assert width == pytest.approx(300 * height / 700, rel=0.01)
    assert A4.column_width < height < A4.height - 2 * MARGIN


@pytest.mark.parametrize("caption", ["Short.", "A long caption, too long for one line. " * 12])
def test_a_tall_picture_fits_on_a_page_with_its_caption(document, caption):
    tall = with_picture(document, 400, 800)
    tall = replace(tall, overview_figure=replace(tall.overview_figure, caption=caption))
    _, height = box_of_opening(tall)
    assert height >= 0.85 * 0.75 * 800
    pages = PdfReader(BytesIO(render_pdf(tall))).pages
    (page,) = (page for page in pages if "Figure title curves" in page.extract_text())
    assert words(caption) in words(page.extract_text())
    assert lowest_text(page) > 19 / 25.4 * 72


def lowest_text(page) -> float:
    """The height above the page's foot of the lowest text but the last line, in points."""
    heights = set()

    def visit(text, current, matrix, *_):
        if text.strip():
            heights.add(round(matrix[5] * current[3] + current[5]))

    page.extract_text(visitor_text=visit)
    return sorted(heights)[1]
