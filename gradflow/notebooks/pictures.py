"""Small pictures as SVG, made without matplotlib: a heat map, curves, and a number's interval."""

import math
import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence

from gradflow.notebooks.html import escape

# Okabe & Ito's colours, which the figures of a report give to networks as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Viridis, from its dark end to its light end.
_SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_MISSING = (136, 136, 136)
_Colour = tuple[int, int, int]
_WIDTH, _LEFT = 600, 130
_LONGEST_LABEL = 20


def heat_map(
    values: Sequence[Sequence[float | None]],
    rows: tuple[str, str],
    columns: tuple[str, str],
    quantity: str,
) -> str:
    """A heat map on a logarithmic scale.

    Args:
        values: a row of the picture each, top first; None, zero and what is not finite stay grey.
        rows, columns: the names of the first and last row, and of the first and last column.
        quantity: what the colours show, in words.
    """
    logs = [[_log(value) for value in row] for row in values]
    known = [value for row in logs for value in row if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    height = max(48, min(220, 6 * len(values)))
    cells = _pixels([[_colour(value, low, high) for value in row] for row in logs], height)
    words = (
        _text(_LEFT - 6, 10, _short(rows[0]), "end")
        + (_text(_LEFT - 6, height, _short(rows[1]), "end") if len(values) > 1 else "")
        + _text(_LEFT, height + 14, columns[0], "start")
        + _text(_WIDTH, height + 14, columns[1], "end")
    )
    shown = [value for row in values for value in row if _log(value) is not None]
    ends = [f"{end(one for one in shown if one):.1e}" for end in (min, max)] if known else []
    legend = _legend(ends[0], f"{ends[1]}  {quantity}", height + 24) if known else ""
    return _svg(height + 40, f"heat map of {quantity}", cells + words + legend)


def curves(series: Mapping[str, Sequence[tuple[float, float]]], colours: Sequence[str]) -> str:
    """Lines on common axes: the points (x, y) of each, in its colour; dots if a line has one point.

    Points that are not finite are left out.
    """
    kept = [
        [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for points in series.values()
    ]
    every = [point for points in kept for point in points]
    if not every:
        return ""
    height, left = 120, 56
    (x_low, x_high), (y_low, y_high) = (
        (min(one[axis] for one in every), max(one[axis] for one in every)) for axis in (0, 1)
    )

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return (
            left + 4 + (x - x_low) / ((x_high - x_low) or 1) * (_WIDTH - left - 8),
            height - 6 - (y - y_low) / ((y_high - y_low) or 1) * (height - 14),
        )

    lines = "".join(_line([place(p) for p in pts], c) for pts, c in zip(kept, colours, strict=True))
    axes = (
        f'<path class="line" d="M{left} 2V{height}H{_WIDTH}" fill="none" stroke-width="0.7"/>'
        + _text(left - 6, 12, f"{y_high:.3g}", "end")
        + (_text(left - 6, height, f"{y_low:.3g}", "end") if y_high > y_low else "")
        + _text(left, height + 14, f"{x_low:g}", "start")
        + (_text(_WIDTH, height + 14, f"{x_high:g}", "end") if x_high > x_low else "")
    )
    return _svg(height + 18, f"curves of {', '.join(series)}"[:200], axes + lines)


def interval(value: float, low: float, high: float, words: tuple[str, str, str]) -> str:
    """A dot on its interval, with `words` at low, value and high; logarithmic if it spans much."""
    if not all(map(math.isfinite, (value, low, high))):
        return ""
    logarithmic = low > 0 and high / low > 30
    ends = [math.log(one) if logarithmic else one for one in (low, value, high)]
    span = (ends[2] - ends[0]) or 1
    places = [90 + (one - ends[0]) / span * (_WIDTH - 180) for one in ends]
    if ends[0] == ends[2]:
        places = [_WIDTH / 2] * 3
    line = (
        f'<path class="line" d="M{places[0]:.1f} 9v10M{places[0]:.1f} 14H{places[2]:.1f}'
        f'M{places[2]:.1f} 9v10" fill="none" stroke-width="2"/>'
        f'<circle cx="{places[1]:.1f}" cy="14" r="5" fill="{COLOURS[1]}"/>'
    )
    texts = _text(places[1], 36, words[1], "middle")
    if ends[0] != ends[2]:
        texts += _text(places[0] - 6, 18, words[0], "end")
        texts += _text(places[2] + 6, 18, words[2], "start")
    return _svg(42, f"{words[1]}, interval from {words[0]} to {words[2]}", line + texts)


def dot(colour: str) -> str:
    """A dot in `colour`, as the key to a curve."""
    return f'<span style="color:{colour}">&#9679;</span>'


def _legend(low: str, high: str, top: float) -> str:
    steps, width = 24, 120
    ramp = _png([[_colour(step / (steps - 1), 0, 1) for step in range(steps)]])
    return (
        _text(_LEFT + 40, top + 9, low, "end")
        + _image(ramp, _LEFT + 44, top, width, 9)
        + _text(_LEFT + 44 + width + 6, top + 9, high, "start")
    )


def _colour(value: float | None, low: float, high: float) -> _Colour:
    if value is None:
        return _MISSING
    place = (value - low) / (high - low) * (len(_SCALE) - 1) if high > low else 2.0
    below = min(int(place), len(_SCALE) - 2)
    red, green, blue = (
        round(a + (place - below) * (b - a))
        for a, b in zip(_SCALE[below], _SCALE[below + 1], strict=True)
    )
    return red, green, blue


def _pixels(colours: Sequence[Sequence[_Colour]], height: float) -> str:
    return _image(_png(colours), _LEFT, 0, _WIDTH - _LEFT, height) if colours else ""


def _image(png: bytes, left: float, top: float, width: float, height: float) -> str:
    content = b64encode(png).decode("ascii")
    return (
        f'<image x="{left}" y="{top}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{content}"/>'
    )


def _png(colours: Sequence[Sequence[_Colour]]) -> bytes:
    """A picture with a pixel for each of `colours` (rows of equal length), much smaller than SVG.

    Source: the PNG specification, third edition, sections 5 and 11.
    """
    rows = b"".join(b"\0" + bytes(part for one in row for part in one) for row in colours)
    header = struct.pack(">IIBBBBB", len(colours[0]), len(colours), 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    if len(points) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3" fill="{colour}"/>'
    if not points:
        return ""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, alt: str, inner: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {_WIDTH} {height:g}" '
        f'width="{_WIDTH}" height="{height:g}">{inner}</svg>'
    )


def _log(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 and math.isfinite(value) else None


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"…{name[1 - _LONGEST_LABEL :]}"
