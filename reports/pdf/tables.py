"""Fits tables to the page: computes column widths, and splits tables that are too wide."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from reports.document.wording import NOT_OBSERVED
from reports.elements import FindingElement, TableElement
from reports.languages.catalogue import ENGLISH, Catalogue, catalogue_of
from reports.pdf.fonts import (
    BOLD_FACTOR,
    UNBROKEN_IN_CELL,
    pdf_text,
    replace_unprintable,
    text_width,
    widest_piece_width,
)

_ENGLISH = catalogue_of(ENGLISH)
# In points: the two font sizes, and the space between the texts of neighbouring cells.
FONT_SIZE, SMALL_FONT_SIZE, _GAP = 8.5, 8.0, 8.0
_LINE_SPACING = 1.35  # the distance of two lines, as a multiple of the font size
_ROW_GAP = 4.0
# In points. A higher table may break across pages.
_HIGHEST_UNBROKEN = 250.0
# If there are more networks, they are listed below each other.
_MOST_NETWORK_COLUMNS = 3


@dataclass(frozen=True)
class _Column:
    """A column's texts, with its minimum width (no word cut) and natural width (no line broken).

    The first text is the bold heading.
    """

    texts: tuple[str, ...]
    numeric: bool

    def minimum_width(self, size: float) -> float:
        return _GAP + self._widest(widest_piece_width, size)

    def natural_width(self, size: float) -> float:
        return _GAP + self._widest(text_width, size)

    def _widest(self, measure: Callable[[str, float], float], size: float) -> float:
        head, *cells = self.texts
        return max(BOLD_FACTOR * measure(head, size), *(measure(text, size) for text in cells), 0.0)


def table_pieces(
    table: TableElement, available: float, words: Catalogue = _ENGLISH
) -> list[dict[str, Any]]:
    """`table` for the template, in pieces of at most `available` points in width.

    Each piece repeats the first column; pieces after the first are labelled as continued.
    """
    columns = [
        _column(name, (row[place] for row in table.rows), table.numeric[place])
        for place, name in enumerate(table.columns)
    ]
    return [
        {
            "label": table.label + (f" {words('(continued)')}" if place else ""),
            "title": pdf_text(table.title),
            "note": pdf_text(table.note),
            **_layout(group, available),
        }
        for place, group in enumerate(_column_groups(columns, available))
    ]


def estimate_table(
    findings: Sequence[FindingElement], available: float, words: Catalogue = _ENGLISH
) -> dict[str, Any] | None:
    """A table of the estimates of `findings`, one row per quantity; None if there are none.

    The networks are columns if they are few and share quantities. `notes` says how the numbers were
    computed; if there are several methods, each number carries the mark of its method.
    """
    rows = [row for finding in findings for row in finding.estimates]
    if not rows:
        return None
    methods = list(dict.fromkeys(row.method for row in rows if row.method))
    marks = {method: _footnote_mark(place) for place, method in enumerate(methods)}
    marked = len(methods) > 1 or any(not row.method for row in rows)
    numbers = {
        (row.name, finding.line.network): row.number
        + (f"\u00a0[{marks[row.method]}]" if marked and row.method else "")
        for finding in findings
        for row in finding.estimates
    }
    networks = list(dict.fromkeys(finding.line.network for finding in findings))
    listed: list[tuple[str, ...]]
    heads: tuple[str, ...]
    names = list(dict.fromkeys(row.name for row in rows))
    nothing_shared = len(networks) > 1 and len(names) == len(numbers)
    if nothing_shared or len(networks) > _MOST_NETWORK_COLUMNS:
        heads = (words("quantity"), words("network"), words("estimate"))
        listed = [(*key, number) for key, number in numbers.items()]
    else:
        heads = (words("quantity"), *networks)
        listed = [
            (name, *(numbers.get((name, network), NOT_OBSERVED) for network in networks))
            for name in names
        ]
    columns = [
        _column(head, (row[place] for row in listed), numeric=False)
        for place, head in enumerate(heads)
    ]
    notes = [pdf_text(f"[{mark}] {method}" if marked else method) for method, mark in marks.items()]
    return _layout(columns, available) | {"notes": notes}


def _footnote_mark(place: int) -> str:
    """The mark of a method: a to z, then aa, ab and so on."""
    return (_footnote_mark(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)


def _column(name: str, cells: Iterable[str], numeric: bool) -> _Column:
    # Numbers are never broken; names may be.
    show = replace_unprintable if numeric else partial(pdf_text, longest=UNBROKEN_IN_CELL)
    return _Column((pdf_text(name, UNBROKEN_IN_CELL), *map(show, cells)), numeric)


def _column_groups(columns: list[_Column], available: float) -> list[list[_Column]]:
    """The columns of each piece; the first column is in every piece."""
    if not columns:
        return [[]]
    first, *rest = columns
    groups, used = [[first]], first.minimum_width(SMALL_FONT_SIZE)
    for column in rest:
        needed = column.minimum_width(SMALL_FONT_SIZE)
        if used + needed > available and len(groups[-1]) > 1:
            groups.append([first])
            used = first.minimum_width(SMALL_FONT_SIZE)
        groups[-1].append(column)
        used += needed
    return groups


def _layout(columns: Sequence[_Column], available: float) -> dict[str, Any]:
    natural = sum(column.natural_width(FONT_SIZE) for column in columns)
    size = FONT_SIZE if natural <= available else SMALL_FONT_SIZE
    widths = _widths(columns, size, available)
    rows = list(zip(*(column.texts for column in columns), strict=True))
    height = sum(_row_height(row, columns, widths, size) for row in rows)
    return {
        "columns": list(rows[0]) if rows else [],
        "rows": [list(row) for row in rows[1:]],
        "numeric": [column.numeric for column in columns],
        "widths": widths,
        "size": size,
        "long": height > _HIGHEST_UNBROKEN,
    }


def _widths(columns: Sequence[_Column], size: float, available: float) -> list[float | None]:
    """The width of each column in points; None if all columns fit, so that typst can choose.

    Otherwise each column gets its minimum width, plus a share of the remaining width that is
    proportional to what it lacks of its natural width.
    """
    natural = [column.natural_width(size) for column in columns]
    if sum(natural) <= available:
        return [None] * len(columns)
    least = [column.minimum_width(size) for column in columns]
    if sum(least) > available:  # even two columns are too wide for one page
        least = [min(wide, available / len(columns)) for wide in least]
    lacking = [wanted - had for wanted, had in zip(natural, least, strict=True)]
    share = (available - sum(least)) / sum(lacking)
    return [had + share * lack for had, lack in zip(least, lacking, strict=True)]


def _row_height(
    row: Sequence[str], columns: Sequence[_Column], widths: Sequence[float | None], size: float
) -> float:
    lines = [
        ceil(text_width(text, size) / (wide - _GAP)) if wide and text else 1
        for text, wide in zip(row, widths, strict=True)
    ]
    return max(lines) * size * _LINE_SPACING + _ROW_GAP
