"""Lays the `Document` out as a PDF with typst: the template reads the texts as data, not markup."""

import json
import re
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typst

from analyses.result import Slider
from reports.document import Document
from reports.parts import Claim, Picture, Section, TablePart

_TEMPLATE = Path(__file__).parent / "templates" / "report.typ"
# The column on A4 with margins of 20 mm, and what leaves room for a caption below a figure.
_WIDEST, _TALLEST = 482.0, 560.0
_MOST_COLUMNS = 10
# A file's properties and links are not laid out, so they must stay as they are.
_NOT_LAID_OUT = {"section", "anchor", "alt"}
_LONG_WORD = re.compile(r"\S{12,}")
_BREAK_AFTER = re.compile(r"([._/\\,;:=#)\-])(?=\w)|([^\W_]{12})(?=\w)")


def render_pdf(document: Document, paper: str = "a4") -> bytes:
    """The report as a PDF on `paper`, a4 or letter; the same document gives the same bytes.

    Only the fonts within typst are used, so it looks the same everywhere.
    """
    with TemporaryDirectory(prefix="gradflow-report-") as name:
        root = Path(name)
        shutil.copyfile(_TEMPLATE, root / "report.typ")
        content = _layout(document, root) | {"paper": "us-letter" if paper == "letter" else paper}
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        (root / "document.json").write_text(text, encoding="utf-8", errors="replace")
        pdf = typst.compile(
            root / "report.typ",
            root=root,
            format="pdf",
            ignore_system_fonts=True,
            timestamp=document.created or datetime.fromtimestamp(0, UTC),
        )
    if not isinstance(pdf, bytes):
        raise TypeError(f"typst gave a {type(pdf).__name__} instead of a PDF")
    return pdf


def _layout(document: Document, root: Path) -> dict[str, Any]:
    content: dict[str, Any] = _breakable(asdict(document, dict_factory=_plain))
    for section, laid_out in zip(document.sections, content["sections"], strict=True):
        _lay_out_evidence(section, laid_out, root)
        for claim, claim_laid_out in zip(section.claims, laid_out["claims"], strict=True):
            _lay_out_evidence(claim, claim_laid_out, root)
    if document.opening is not None:
        content["opening"]["picture"] = _place(
            document.opening.picture, document.opening.label, root
        )
    content["dated"] = document.created is not None
    content["configuration"] = _tables(document.configuration)
    del content["explorer"]  # a page on paper has none
    return content


def _lay_out_evidence(part: Section | Claim, laid_out: dict[str, Any], root: Path) -> None:
    laid_out["tables"] = _tables(part.tables)
    for figure, place in zip(part.figures, laid_out["figures"], strict=True):
        place["picture"] = _place(figure.picture, figure.label, root)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Pictures go to files and the date into the file's own properties.
    return {
        name: value for name, value in pairs if not isinstance(value, bytes | datetime | Slider)
    }


def _place(picture: Picture | None, label: str, root: Path) -> dict[str, Any] | None:
    """Write the picture to a file; its size such that the page never cuts it."""
    if picture is None:
        return None
    name = f"{label.lower().replace(' ', '-')}.{picture.suffix}"
    (root / name).write_bytes(picture.data)
    scale = min(1.0, _WIDEST / picture.width, _TALLEST / picture.height)
    return {"file": name, "width": picture.width * scale, "height": picture.height * scale}


def _tables(tables: tuple[TablePart, ...]) -> list[dict[str, Any]]:
    """Tables too wide for the page become several, each of which repeats the first column."""
    pieces = []
    for table in tables:
        rest = range(1, len(table.columns))
        width = _MOST_COLUMNS - 1
        groups = [rest[start : start + width] for start in range(0, len(rest), width)] or [rest]
        for place, group in enumerate(groups):
            columns = [*([0] if table.columns else []), *group]
            pieces.append(_piece(table, columns, " (continued)" if place else ""))
    return pieces


def _piece(table: TablePart, columns: list[int], suffix: str) -> dict[str, Any]:
    piece: dict[str, Any] = _breakable(
        {
            "label": table.label + suffix,
            "title": table.title,
            "columns": [table.columns[column] for column in columns],
            "rows": [[row[column] for column in columns] for row in table.rows],
            "note": table.note,
        }
    )
    return piece | {"numeric": [table.numeric[column] for column in columns]}


def _breakable(content: Any) -> Any:
    """Let long words break: typst breaks a line at a zero-width space, HTML anywhere by itself."""
    if isinstance(content, str):
        return _LONG_WORD.sub(lambda word: _BREAK_AFTER.sub("\\g<0>\u200b", word[0]), str(content))
    if isinstance(content, dict):
        return {
            name: value if name in _NOT_LAID_OUT else _breakable(value)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [_breakable(item) for item in content]
    return content
