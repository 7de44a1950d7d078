"""Draws magnitudes by depth as ridges: one histogram a layer, the input at the bottom."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, MultipleLocator

from analyses.gradients.magnitudes.measure import HISTOGRAM_TABLES, Magnitudes
from analyses.plotting import panels, theme
from gradflow.runs.reading.magnitudes import FLOAT16

NETWORKS_PER_ROW = 3  # further networks come below
MAX_RIDGES = 17  # in a panel: more are thinned out evenly
OVERLAP = 2.0  # height of the tallest ridge, in distances between neighbouring ridges
MIN_SHARE = 0.001  # bins with less at the ends of a ridge are cut off
AXIS_MARGIN = 1.5  # powers of two shown beyond the range of float16


@theme.themed
def draw_ridges(networks: list[str], shown: Sequence[Magnitudes]) -> Drawing:
    """Draw one column a network, activations above gradients, with one axis range for all."""
    across = min(len(shown), NETWORKS_PER_ROW)
    groups = [shown[first : first + across] for first in range(0, len(shown), across)]
    figure, axes = panels.subplots(
        len(HISTOGRAM_TABLES) * len(groups), across, 2.9 * len(HISTOGRAM_TABLES) * len(groups)
    )
    limits = _axis_limits(shown)
    palette = theme.colours(networks)
    for axis in axes.flat:
        axis.set_visible(False)
    for row, (group, kind) in enumerate(
        (group, kind) for group in groups for kind in HISTOGRAM_TABLES
    ):
        for column, one in enumerate(group):
            axis = axes[row, column]
            axis.set_visible(True)
            _draw_float16_bounds(axis, limits)
            _draw_histograms(axis, one, kind, palette[one.network], OVERLAP / _tallest(shown, kind))
            axis.set_title(f"{one.network}: {kind}", parse_math=False)
            if column == 0:
                axis.set_ylabel("depth (layers from the input)")
    panels.legend(figure, [axis for axis in axes.flat if axis.get_visible()], columns=3)
    return figure


def _axis_limits(shown: Sequence[Magnitudes]) -> tuple[float, float]:
    """Ends of the axis: they include float16's range and all bins with at least `MIN_SHARE`."""
    filled = [
        int(exponent)
        for one in shown
        for ridges in one.ridges.values()
        for exponent in ridges.columns[(ridges >= MIN_SHARE).any()]
    ]
    low, high = FLOAT16.smallest - AXIS_MARGIN, FLOAT16.largest + 1 + AXIS_MARGIN
    return min([low, *filled]), max([high, *(exponent + 1 for exponent in filled)])


def _draw_float16_bounds(axis: Axes, limits: tuple[float, float]) -> None:
    """Mark what float16 does to each magnitude: zero, fewer digits, unchanged, infinite."""
    axis.set_xlim(limits)
    axis.axvspan(limits[0], FLOAT16.smallest, color="#d0d0d0", lw=0, zorder=0)
    axis.axvspan(FLOAT16.smallest, FLOAT16.smallest_normal, color="#ececec", lw=0, zorder=0)
    axis.axvspan(FLOAT16.largest + 1, limits[1], color="#d0d0d0", lw=0, zorder=0)
    for place, style, label in (
        (FLOAT16.smallest, ":", "float16: smallest number"),
        (FLOAT16.smallest_normal, "--", "float16: smallest normal number"),
        (FLOAT16.largest + 1, "-.", "float16: end of its range"),
    ):
        axis.axvline(place, color=theme.GREY, lw=0.9, ls=style, label=label, zorder=1)
    axis.xaxis.set_major_locator(MultipleLocator(8 if limits[1] - limits[0] < 72 else 16))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda power, _: f"$2^{{{power:.0f}}}$"))
    axis.set_xlabel("magnitude")
    axis.grid(False)


def _draw_histograms(axis: Axes, one: Magnitudes, kind: str, colour: str, unit: float) -> None:
    first, last = (one.ridges[kind, epoch] for epoch in (one.epochs[0], one.epochs[-1]))
    places = np.linspace(0, len(last) - 1, min(len(last), MAX_RIDGES)).round().astype(int)
    depths = last.index[np.unique(places)]
    # Draw from back to front: each ridge covers the foot of the one behind it.
    for place in range(len(depths) - 1, -1, -1):
        order = 3 + len(depths) - place
        axis.axhline(place, color=theme.GRID, lw=0.5, zorder=order)
        x, height = _outline(last, depths[place])
        axis.fill_between(
            x, place, place + unit * height, color=colour, alpha=0.5, lw=0, zorder=order
        )
        axis.plot(x, place + unit * height, color=colour, lw=0.8, zorder=order + 0.2)
        if len(one.epochs) > 1 and depths[place] in first.index:
            x, height = _outline(first, depths[place])
            axis.plot(x, place + unit * height, "k--", lw=0.6, zorder=order + 0.1)
    axis.fill_between([], [], [], color="#9a9a9a", label=f"epoch {one.epochs[-1]}")
    if len(one.epochs) > 1:
        axis.plot([], [], "k--", lw=0.6, label=f"epoch {one.epochs[0]}")
    shown = slice(None, None, 1 if len(depths) <= 9 else 2)
    axis.set_yticks(range(len(depths))[shown], [f"{depth:.0f}" for depth in depths[shown]])
    axis.set_ylim(-0.3, max(len(depths), 1) - 1 + OVERLAP + 0.1)


def _tallest(shown: Sequence[Magnitudes], kind: str) -> float:
    """The largest share in one bin over all networks: all ridges have the same vertical scale."""
    found = [
        r.to_numpy().max(initial=0)
        for one in shown
        for (k, _), r in one.ridges.items()
        if k == kind
    ]
    return max(found) or 1.0


def _outline(ridges: pd.DataFrame, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """A ridge as a polygon through the middles of its bins, without flat ends: x and height."""
    shares = ridges.loc[depth]
    high = np.flatnonzero(shares >= MIN_SHARE)
    shares = shares.iloc[max(high[0] - 1, 0) : high[-1] + 2] if len(high) else shares
    return shares.index.to_numpy(dtype=float) + 0.5, shares.to_numpy(dtype=float)
