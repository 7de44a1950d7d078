"""Draws a flowchart of imports as SVG, so that the site shows it without a script from elsewhere.

Only what our pictures need: boxes in rows, so that every arrow points down.
"""

from html import escape

_CHARACTER, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 7.4, 26, 14, 58, 8


def drawn(flowchart: str) -> str:
    """The lines `a --> b & c` of a Mermaid flowchart as a block of SVG for a Markdown page."""
    arrows = _arrows(flowchart)
    rows = _rows(arrows)
    boxes = _boxes(rows)
    width = max(x + w for x, _, w in boxes.values()) + _MARGIN
    height = len(rows) * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    said = escape("; ".join(f"{a} imports {b}" for a, b in arrows))
    lines = "".join(_line(boxes[a], boxes[b]) for a, b in arrows)
    names = "".join(_box(name, place) for name, place in boxes.items())
    return (
        f'<div class="imports"><svg role="img" aria-label="{said}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        'font-family="monospace" font-size="12" fill="currentColor" stroke="currentColor">'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" stroke="none"/></marker></defs>'
        f"{lines}{names}</svg></div>\n"
    )


def _arrows(flowchart: str) -> list[tuple[str, str]]:
    pairs = [line.strip().split(" --> ") for line in flowchart.splitlines() if " --> " in line]
    return [(a, b) for a, targets in pairs for b in targets.split(" & ")]


def _rows(arrows: list[tuple[str, str]]) -> list[list[str]]:
    """Each name as high as it can stand below all that import it."""
    depth = {name: 0 for pair in arrows for name in pair}
    for _ in depth:
        for a, b in arrows:
            depth[b] = max(depth[b], depth[a] + 1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, row in depth.items():
        rows[row].append(name)
    place: dict[str, float] = {}
    for row in rows:  # near to those that import them
        above = {b: [place[a] for a, c in arrows if c == b and a in place] for b in row}
        row.sort(key=lambda name: sum(above[name]) / len(above[name]) if above[name] else 0.5)
        place |= {name: (index + 0.5) / len(row) for index, name in enumerate(row)}
    return rows


def _boxes(rows: list[list[str]]) -> dict[str, tuple[float, float, float]]:
    """Left edge, top edge and width of each name's box."""
    widths = {name: len(name) * _CHARACTER + 14 for row in rows for name in row}
    whole = max(sum(widths[name] + _GAP_X for name in row) - _GAP_X for row in rows)
    boxes = {}
    for number, row in enumerate(rows):
        spare = whole - sum(widths[name] for name in row)
        gap = spare / (len(row) + 1)
        x = _MARGIN + gap
        for name in row:
            boxes[name] = (x, _MARGIN + number * (_HEIGHT + _GAP_Y), widths[name])
            x += widths[name] + gap
    return boxes


def _line(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2] / 2, start[1] + _HEIGHT
    x2, y2 = end[0] + end[2] / 2, end[1]
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} '
        f'{x2:.0f} {y2:.0f}" fill="none" opacity="0.55" marker-end="url(#head)"/>'
    )


def _box(name: str, place: tuple[float, float, float]) -> str:
    x, y, width = place
    return (
        f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{_HEIGHT}" rx="4" '
        'class="box"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + 17}" text-anchor="middle" stroke="none">'
        f"{escape(name)}</text>"
    )
