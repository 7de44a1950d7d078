"""Renders the `Document` as PDF with typst; the template reads texts as data, not as markup."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import typst

from analyses.result import Slider
from gradflow.errors import ConfigurationError, RunError
from reports.elements import (
    Card,
    Claim,
    Document,
    FigureElement,
    Section,
    Shortcut,
    TableElement,
)
from reports.languages.catalogue import Catalogue, catalogue_of
from reports.pdf.fonts import (
    REPLACED_CHARACTER,
    UNBROKEN_IN_CELL,
    font_files,
    pdf_text,
    replace_unprintable,
    text_width,
)
from reports.pdf.tables import estimate_table, table_pieces

_TEMPLATES = Path(__file__).parent / "templates"
_FONTS = "fonts"
# Tagged PDF for screen readers; typst refuses documents that violate the standard.
_STANDARD: Final = "ua-1"
# In points: the font size of the table of verdicts, and the largest width of its network column.
_VERDICT_FONT_SIZE, _WIDEST_NETWORK = 8.0, 90.0
# The template's margins, the font size of captions and the distance of their lines, in points.
_SIDE_MARGINS, _TOP_AND_BOTTOM_MARGINS = 113.4, 119.1
_CAPTION_FONT_SIZE, _CAPTION_LINE = 9.0, 13.0
# A wide figure that would shrink to less than this fraction of its size is rotated by 90 degrees.
_SMALLEST_UPRIGHT_SCALE = 0.75
# Fields that are link targets or PDF properties; their texts are not changed.
_KEPT_AS_IS = {"anchor", "alt", "link"}


@dataclass(frozen=True)
class Paper:
    """A paper size: its name in typst, and its width and height in points."""

    name: str
    width: float
    height: float

    @property
    def column_width(self) -> float:
        """The width of the text, in points."""
        return self.width - _SIDE_MARGINS

    def tallest_figure(self, caption: str) -> float:
        """The largest height of a figure with `caption` on one page, in points."""
        lines = 2 + ceil(text_width(caption, _CAPTION_FONT_SIZE) / self.column_width)
        room = self.height - _TOP_AND_BOTTOM_MARGINS
        # A very long caption must not shrink the figure to nothing.
        return max(room - lines * _CAPTION_LINE, room / 2)


A4 = Paper("a4", 595.276, 841.89)
LETTER = Paper("us-letter", 612.0, 792.0)
PAPERS = {"a4": A4, "letter": LETTER, "us-letter": LETTER}


def render_pdf(document: Document, paper: str = "a4") -> bytes:
    """The report as a tagged PDF (PDF/UA-1); the same document gives the same bytes.

    The fonts come with typst and matplotlib, so the PDF looks the same everywhere. A character that
    they lack is replaced by its Unicode number.

    Args:
        document: the report.
        paper: a4 or letter (or us-letter, the same).

    Raises `ConfigurationError` if the paper is unknown, `RunError` if typst cannot lay it out.
    """
    if paper not in PAPERS:
        raise ConfigurationError(f"the paper {paper!r} is unknown: choose a4 or letter")
    when = document.created or datetime.fromtimestamp(0, UTC)
    with TemporaryDirectory(prefix="gradflow-report-") as name:
        root = Path(name)
        shutil.copytree(_TEMPLATES, root, dirs_exist_ok=True)
        # The fonts get their own folder: typst loads every font in it, in the folder's order.
        (root / _FONTS).mkdir()
        for font in font_files():
            shutil.copy(font, root / _FONTS)
        words = catalogue_of(document.language)
        (root / "words.json").write_text(
            json.dumps(dict(words.messages), ensure_ascii=False), encoding="utf-8"
        )
        content = _layout(document, PAPERS[paper], root)
        try:
            return _compile(content, root, when, _STANDARD)
        except typst.TypstError as error:
            # A report that is not accessible, and says so, is better than no report.
            return _compile_without_standard(
                content | {"standard_error": replace_unprintable(error.message)}, root, when
            )


def _compile_without_standard(content: dict[str, Any], root: Path, when: datetime) -> bytes:
    try:
        return _compile(content, root, when, None)
    except typst.TypstError as error:  # e.g. the names of a forged run
        raise RunError(
            f"the PDF cannot be laid out ({replace_unprintable(error.message)}): "
            "leave it out with --format"
        ) from error


def _compile(
    content: dict[str, Any], root: Path, when: datetime, standard: Literal["ua-1"] | None
) -> bytes:
    text = json.dumps(content, ensure_ascii=False)
    (root / "document.json").write_text(text, encoding="utf-8", errors="replace")
    return typst.compile(
        root / "report.typ",
        root=root,
        format="pdf",
        pdf_standards=standard,
        ignore_system_fonts=True,
        font_paths=[root / _FONTS],
        timestamp=when,
    )


def _layout(document: Document, paper: Paper, root: Path) -> dict[str, Any]:
    """The data that the template reads; the pictures are written to files in `root`."""
    # The explorer needs scripts, so it is left out.
    content: dict[str, Any] = _with_pdf_texts(
        asdict(
            replace(document, explorer=None, shortcuts=_on_paper(document)),
            dict_factory=_without_files_and_dates,
        )
    )
    words = catalogue_of(document.language)
    pairs = zip(document.sections, content["sections"], strict=True)
    for section, laid_out in pairs:
        _lay_out_evidence(section, laid_out, paper, root, words)
        for claim, claim_laid_out in zip(section.claims, laid_out["claims"], strict=True):
            _lay_out_evidence(claim, claim_laid_out, paper, root, words)
            claim_laid_out["estimates"] = estimate_table(claim.findings, paper.column_width, words)
    if document.overview_figure is not None:
        content["overview_figure"]["picture"] = _write_picture(
            document.overview_figure, paper, root
        )
    for destination, laid_out in zip(document.destinations, content["destinations"], strict=True):
        for place, place_laid_out in zip(destination.places, laid_out["places"], strict=True):
            place_laid_out["web"] = place.is_on_the_web
    content |= {
        "paper": paper.name,
        "has_date": document.created is not None,
        "properties": {"title": document.title, "description": document.question},
        "cards": _cards(document.cards),
        "verdicts": _verdicts_by_section(document),
        "configuration": _tables(document.configuration, paper, words),
        "standard_error": "",
    }
    return content | {"has_replaced_characters": bool(REPLACED_CHARACTER.search(str(content)))}


def _on_paper(document: Document) -> tuple[Shortcut, ...]:
    """The shortcuts that lead to something in the PDF: the explorer is left out."""
    anchors = {section.anchor for section in document.sections}
    return tuple(one for one in document.shortcuts if "#" in one.anchor or one.anchor in anchors)


def _lay_out_evidence(
    part: Section | Claim, laid_out: dict[str, Any], paper: Paper, root: Path, words: Catalogue
) -> None:
    laid_out["tables"] = _tables(part.tables, paper, words)
    for figure, place in zip(part.figures, laid_out["figures"], strict=True):
        place["picture"] = _write_picture(figure, paper, root)


def _without_files_and_dates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Pictures go to files; the date goes into the properties of the PDF.
    return {
        name: value for name, value in pairs if not isinstance(value, bytes | datetime | Slider)
    }


def _write_picture(figure: FigureElement, paper: Paper, root: Path) -> dict[str, Any] | None:
    """Write the picture to a file; return its name, rotation, and a size that fits the page."""
    picture = figure.picture
    if picture is None:
        return None
    name = f"{figure.label.lower().replace(' ', '-')}.{picture.suffix}"
    (root / name).write_bytes(picture.data)
    tallest = paper.tallest_figure(f"{figure.label}. {figure.title} {figure.caption}")
    upright = min(1.0, paper.column_width / picture.width, tallest / picture.height)
    sideways = min(1.0, tallest / picture.width, paper.column_width / picture.height)
    turned = upright < _SMALLEST_UPRIGHT_SCALE and sideways > upright
    scale = sideways if turned else upright
    size = {"width": picture.width * scale, "height": picture.height * scale}
    return {"file": name, "turned": turned, **size}


def _tables(tables: Iterable[TableElement], paper: Paper, words: Catalogue) -> list[dict[str, Any]]:
    return [piece for table in tables for piece in table_pieces(table, paper.column_width, words)]


def _verdicts_by_section(document: Document) -> dict[str, Any]:
    """The verdicts, grouped by section."""
    groups = [
        {"heading": _with_pdf_texts(group.heading), "cards": _cards(group.cards)}
        for group in document.verdicts_by_analysis
    ]
    networks = {line.network for card in document.verdicts for line in card.lines}
    widest = max((text_width(network, _VERDICT_FONT_SIZE) for network in networks), default=0.0)
    return {"groups": groups, "network_width": min(widest, _WIDEST_NETWORK)}


def _cards(cards: Iterable[Card]) -> list[dict[str, Any]]:
    """Cards for the template; a measure that all networks share is stated once."""
    laid_out = []
    for card in cards:
        measures = {line.measure for line in card.lines}
        measure = measures.pop() if len(measures) == 1 else ""
        card_laid_out = _with_pdf_texts(asdict(card)) | {"measure": _with_pdf_texts(measure)}
        for line, line_laid_out in zip(card.lines, card_laid_out["lines"], strict=True):
            line_laid_out["network"] = pdf_text(line.network, UNBROKEN_IN_CELL)
        laid_out.append(card_laid_out)
    return laid_out


def _with_pdf_texts(content: Any) -> Any:
    """`content` with every text as `pdf_text` gives it."""
    if isinstance(content, str):
        return pdf_text(str(content))
    if isinstance(content, dict):
        return {
            name: value if name in _KEPT_AS_IS else _with_pdf_texts(value)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [_with_pdf_texts(item) for item in content]
    return content
