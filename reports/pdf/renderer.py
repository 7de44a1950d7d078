"""Lays the `Document` out as a PDF with typst: the template reads the texts as data, not markup."""

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
from reports.elements import Card, Claim, Document, FigureElement, Section, TableElement
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
# Tagged for readers who listen; typst refuses what it can see breaks the standard.
_STANDARD: Final = "ua-1"
# The type in the table of verdicts, and what its networks may take of its width, in points.
_VERDICT_FONT_SIZE, _WIDEST_NETWORK = 8.0, 90.0
# The margins of the template, its type in captions and the distance of their lines, in points.
_SIDE_MARGINS, _TOP_AND_BOTTOM_MARGINS = 113.4, 119.1
_CAPTION_FONT_SIZE, _CAPTION_LINE = 9.0, 13.0
# A wide figure that would shrink to less than this share of its size is turned on its side.
_SMALLEST_UPRIGHT_SCALE = 0.75
# What links and properties hold is not laid out: it stays as it is.
_KEPT_AS_IS = {"anchor", "alt"}


@dataclass(frozen=True)
class Paper:
    """A size of paper: its name in typst, and its width and height in points."""

    name: str
    width: float
    height: float

    @property
    def column_width(self) -> float:
        """The width of the text, in points."""
        return self.width - _SIDE_MARGINS

    def tallest_figure(self, caption: str) -> float:
        """The height of a figure that leaves room for `caption` on its page, in points."""
        lines = 2 + ceil(text_width(caption, _CAPTION_FONT_SIZE) / self.column_width)
        room = self.height - _TOP_AND_BOTTOM_MARGINS
        # A caption without end must not make the figure vanish.
        return max(room - lines * _CAPTION_LINE, room / 2)


A4 = Paper("a4", 595.276, 841.89)
LETTER = Paper("us-letter", 612.0, 792.0)
PAPERS = {"a4": A4, "letter": LETTER, "us-letter": LETTER}


def render_pdf(document: Document, paper: str = "a4") -> bytes:
    """The report as a tagged PDF (PDF/UA-1); the same document gives the same bytes.

    The fonts come with typst and matplotlib, so it looks the same everywhere. A letter that they
    lack stands as its Unicode number.

    Args:
        document: what to lay out.
        paper: a4 or letter (or us-letter, the same).

    Raises `ConfigurationError` where the paper is unknown, `RunError` where it cannot be laid out.
    """
    if paper not in PAPERS:
        raise ConfigurationError(f"the paper {paper!r} is unknown: choose a4 or letter")
    when = document.created or datetime.fromtimestamp(0, UTC)
    with TemporaryDirectory(prefix="gradflow-report-") as name:
        root = Path(name)
        shutil.copytree(_TEMPLATES, root, dirs_exist_ok=True)
        # Alone in a folder: typst would reach for every font beside them, in the folder's order.
        (root / _FONTS).mkdir()
        for font in font_files():
            shutil.copy(font, root / _FONTS)
        content = _layout(document, PAPERS[paper], root)
        try:
            return _compile(content, root, when, _STANDARD)
        except typst.TypstError as error:
            # A report that only some readers can use, and that says so, is better than none.
            return _compile_without_standard(
                content | {"standard_error": replace_unprintable(error.message)}, root, when
            )


def _compile_without_standard(content: dict[str, Any], root: Path, when: datetime) -> bytes:
    try:
        return _compile(content, root, when, None)
    except typst.TypstError as error:  # names of a forged run may be more than it can lay out
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
    """What the template reads; the pictures go to files in `root`."""
    # A page on paper has no explorer.
    content: dict[str, Any] = _with_pdf_texts(
        asdict(replace(document, explorer=None), dict_factory=_without_files_and_dates)
    )
    pairs = zip(document.sections, content["sections"], strict=True)
    for section, laid_out in pairs:
        _lay_out_evidence(section, laid_out, paper, root)
        for claim, claim_laid_out in zip(section.claims, laid_out["claims"], strict=True):
            _lay_out_evidence(claim, claim_laid_out, paper, root)
            claim_laid_out["estimates"] = estimate_table(claim.findings, paper.column_width)
    if document.overview_figure is not None:
        content["overview_figure"]["picture"] = _write_picture(
            document.overview_figure, paper, root
        )
    content |= {
        "paper": paper.name,
        "has_date": document.created is not None,
        "properties": {"title": document.title, "description": document.question},
        "cards": _cards(document.cards),
        "verdicts": _verdicts_by_section(document),
        "configuration": _tables(document.configuration, paper),
        "standard_error": "",
    }
    return content | {"has_replaced_characters": bool(REPLACED_CHARACTER.search(str(content)))}


def _lay_out_evidence(
    part: Section | Claim, laid_out: dict[str, Any], paper: Paper, root: Path
) -> None:
    laid_out["tables"] = _tables(part.tables, paper)
    for figure, place in zip(part.figures, laid_out["figures"], strict=True):
        place["picture"] = _write_picture(figure, paper, root)


def _without_files_and_dates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Pictures go to files and the date into the file's own properties.
    return {
        name: value for name, value in pairs if not isinstance(value, bytes | datetime | Slider)
    }


def _write_picture(figure: FigureElement, paper: Paper, root: Path) -> dict[str, Any] | None:
    """Write the picture to a file; its size such that the page never cuts it."""
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


def _tables(tables: Iterable[TableElement], paper: Paper) -> list[dict[str, Any]]:
    return [piece for table in tables for piece in table_pieces(table, paper.column_width)]


def _verdicts_by_section(document: Document) -> dict[str, Any]:
    """The verdicts below the headings of the sections that give them."""
    groups = []
    for section in document.sections:
        anchors = {claim.anchor for claim in section.claims}
        cards = [card for card in document.verdicts if card.anchor in anchors]
        if cards:
            groups.append({"heading": _with_pdf_texts(section.heading), "cards": _cards(cards)})
    networks = {line.network for card in document.verdicts for line in card.lines}
    widest = max((text_width(network, _VERDICT_FONT_SIZE) for network in networks), default=0.0)
    return {"groups": groups, "network_width": min(widest, _WIDEST_NETWORK)}


def _cards(cards: Iterable[Card]) -> list[dict[str, Any]]:
    """Cards with what was measured: once where it is the same for all networks."""
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
    """Texts in letters that the fonts have, whose long words may break."""
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
