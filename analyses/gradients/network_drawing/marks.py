"""Draws the parts of a network: bands, boxes, arrows of a given width, and their legend."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from analyses.gradients.network_drawing.colours import ARROWS, BAND, LINE
from analyses.wording.numbers import number

_DASH, _GAP = 2.4, 0.9  # lengths in points, for any width
_CURVE = 0.5523  # share of the radius for control points, so that a cubic curve looks like a circle
INVISIBLE = 0.001  # not zero: the slider can only change the width of a line that exists
TIMES = "\u00d7"  # multiplication sign
THINNEST, WIDEST = 0.3, 8.5
WIDTH_OF_ONE = 3.0  # largest width in points of a gradient of 1 on a linear scale
MIN_WIDTH_OF_ONE = 0.9


@dataclass(frozen=True)
class Scale:
    """The scale from relative gradient norms to line widths in points.

    Fields:
        linear: linear if true, otherwise logarithmic.
        points: width of a norm of 1 if linear; otherwise the width that each doubling adds.
        low, high: the smallest and the largest norm drawn.
    """

    linear: bool
    points: float
    low: float
    high: float

    def width(self, relative: float) -> float:
        """The width of an arrow; 0 if there is no number."""
        if not np.isfinite(relative):
            return 0.0
        if self.linear:
            return round(max(THINNEST, self.points * relative), 3)
        doublings = np.log2(relative / self.low) if relative > 0 else 0.0
        return round(max(THINNEST, THINNEST + self.points * doublings), 3)

    @property
    def samples(self) -> tuple[float, ...]:
        """Relative norms for a legend, five at most."""
        if self.linear:
            return tuple(x for x in (0.25, 0.5, 1.0, 2.0, 4.0) if x <= 1 or x <= 1.2 * self.high)
        decades = np.arange(np.floor(np.log10(self.low)) + 1, np.ceil(np.log10(self.high)))
        kept = decades[:: -(-len(decades) // 5)] if len(decades) else decades
        return tuple(float(10**decade) for decade in kept)

    @property
    def words(self) -> str:
        """The kind of scale in words, for a legend."""
        return "width proportional" if self.linear else "each doubling adds an equal width"


def scale_for(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> Scale:
    """The scale for the relative norms `values`: linear if small ones stay visible on it."""
    seen = values[np.isfinite(values) & (values > 0)]
    if not len(seen):
        return Scale(True, WIDTH_OF_ONE, 1.0, 1.0)
    high, low = float(seen.max()), float(seen.min())
    points = min(WIDTH_OF_ONE, WIDEST / high)
    if points >= MIN_WIDTH_OF_ONE:
        return Scale(True, points, low, high)
    return Scale(False, (WIDEST - THINNEST) / float(np.log2(high / low)), low, high)


def times(shape: str) -> str:
    """A recorded shape such as `64x8x8` with the sign of multiplication."""
    return shape.replace("x", TIMES)


def factor_text(factor: float) -> str:
    """How the gradient changes over a stage, as a short label."""
    return f"↑ {TIMES}{number(factor)}" if np.isfinite(factor) else "↑ ?"


def shortened(name: str, most: int) -> str:
    """The end of `name` in at most `most` letters: its last parts tell blocks apart."""
    while len(name) > most and "." in name:
        name = name.partition(".")[2]
    return name if len(name) <= most else f"…{name[1 - most :]}"


def head_size(width: float) -> float:
    """The side of the head of an arrow `width` points wide; 0 if there is no arrow."""
    return 0.0 if width == 0 else 3.4 + 1.05 * width


def band(axis: Axes, left: float, right: float, top: float, bottom: float) -> None:
    """Draw the background of a stage."""
    axis.add_patch(
        Rectangle((left, top), right - left, bottom - top, facecolor=BAND, edgecolor="none",
                  zorder=0, clip_on=False)
    )  # fmt: skip


def box(axis: Axes, centre: float, half: float, top: float, bottom: float, stacked: bool) -> None:
    """Draw a box; if `stacked`, with edges of further boxes behind it."""
    for behind in (2, 1, 0) if stacked else (0,):
        axis.add_patch(
            FancyBboxPatch(
                (centre - half + 1.6 * behind, top - 1.3 * behind), 2 * half, bottom - top,
                boxstyle="round,pad=0,rounding_size=2.2", facecolor="white", edgecolor=LINE,
                linewidth=0.7, zorder=4 - 0.1 * behind, clip_on=False,
            )
        )  # fmt: skip


def text(axis: Axes, x: float, y: float, words: str, size: float, **options: Any) -> None:
    """Write `words` vertically centred on `y`."""
    settings = {"va": "center", "color": LINE, "clip_on": False, "zorder": 6, **options}
    # Otherwise a dollar sign in a name would start a formula.
    axis.text(x, y, words, fontsize=size, parse_math=False, **settings)


def line(axis: Axes, path: Path, kind: str, width: float, gid: str = "") -> None:
    """Draw the line of an arrow of `kind`, `width` points wide."""
    drawn = max(width, INVISIBLE)
    style = (0, (_DASH / drawn, _GAP / drawn)) if kind == "branch" else "-"
    patch = PathPatch(
        path, facecolor="none", edgecolor=ARROWS[kind], linewidth=drawn, linestyle=style,
        capstyle="butt", joinstyle="round", zorder=3 if kind != "skip" else 2, clip_on=False,
    )  # fmt: skip
    patch.set_gid(gid or None)
    axis.add_patch(patch)


def head(axis: Axes, x: float, y: float, kind: str, width: float, gid: str = "") -> None:
    """Draw the head of an upward arrow with its centre at (x, y)."""
    side = max(head_size(width), INVISIBLE)
    half, up = side / 2, 0.45 * side
    corners = [(x - half, y + up), (x + half, y + up), (x, y - up)]
    patch = Polygon(
        corners,
        closed=True,
        facecolor=ARROWS[kind],
        edgecolor="white",
        linewidth=0.4,
        zorder=5,
        clip_on=False,
    )
    patch.set_gid(gid or None)
    axis.add_patch(patch)


def straight(x: float, start: float, end: float) -> Path:
    """A vertical line from one height to another."""
    return Path([(x, start), (x, end)])


def arc(x: float, start: float, end: float, reach: float) -> Path:
    """Half an ellipse from the lower to the upper height, which reaches `reach` to the right."""
    middle, k = (start + end) / 2, _CURVE
    half = (start - end) / 2
    points = [
        (x, start), (x + k * reach, start), (x + reach, middle + k * half), (x + reach, middle),
        (x + reach, middle - k * half), (x + k * reach, end), (x, end),
    ]  # fmt: skip
    return Path(points, [Path.MOVETO, *[Path.CURVE4] * 6])


def quarter(x: float, height: float, reach: float, rise: float, far: float) -> Path:
    """A curve from (x, height) to the right that rises by `rise`, then a straight line to `far`."""
    k = _CURVE
    points = [
        (x, height), (x + k * reach, height), (x + reach, height - rise + k * rise),
        (x + reach, height - rise), (x + reach, far),
    ]  # fmt: skip
    return Path(points, [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO])


def sample_arrow(axis: Axes, x: float, y: float, kind: str, width: float) -> None:
    """Draw a sample arrow for the legend, pointing upward as in the drawing."""
    line(axis, straight(x, y + 8, y - 5), kind, width)
    head(axis, x, y - 6, kind, width)


def prepare_sheet(axis: Axes, width: float, height: float) -> None:
    """Make `axis` an empty sheet whose units are points from its top left corner."""
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_axis_off()
