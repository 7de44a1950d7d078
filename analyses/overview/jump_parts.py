"""Draws what each jump of accuracy was made of: a change of the weights, and stale statistics."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from analyses.overview.measure import NetworkOverview
from analyses.plotting import theme

BAR_WIDTH = 0.62  # of an epoch, for the bars of all seeds
POINTS = 100  # of accuracy: points of a percentage
_WHOLE = "jump, not split"
_WEIGHTS = "part of a jump: the weights"
_STALE = "part of a jump: stale statistics"
# The filling and the hatching of a bar. In grey they differ too.
_FILLINGS = {_WHOLE: ("none", ""), _WEIGHTS: ("#5f5f5f", ""), _STALE: ("white", "/////")}


def parts_of(one: NetworkOverview) -> pd.DataFrame:
    """The marked changes in points of a percentage: seed, epoch, change, weights, stale.

    `weights` is the change that the accuracy with re-estimated statistics makes too, and `stale`
    what is left of the change; both NaN if these were not recorded.
    """
    marked = one.marked
    weights = marked["fresh_change"].astype(float) * POINTS
    change = marked["change"].astype(float) * POINTS
    return pd.DataFrame(
        {
            "seed": marked["seed"],
            "epoch": marked["epoch"].astype(float),
            "change": change,
            "weights": weights,
            "stale": change - weights,
        }
    )


def draw_parts(axis: Axes, one: NetworkOverview) -> None:
    """A bar for each jump, split in its parts; parts of opposite sign stand on both sides of 0.

    The bars of several seeds stand side by side.
    """
    parts = parts_of(one)
    axis.axhline(0, color="black", lw=0.7)
    seeds = sorted(one.curves["seed"].astype(str).unique())
    width = BAR_WIDTH / max(1, len(seeds))
    bars: list[tuple[float, float, float, str]] = []  # place, height, bottom, kind
    for bar in parts.itertuples():
        place = bar.epoch + (seeds.index(str(bar.seed)) - (len(seeds) - 1) / 2) * width
        if pd.isna(bar.stale):
            bars.append((place, bar.change, 0.0, _WHOLE))
            continue
        stacked = bar.weights if bar.weights * bar.stale > 0 else 0.0
        bars.append((place, bar.weights, 0.0, _WEIGHTS))
        bars.append((place, bar.stale, stacked, _STALE))
    _draw_bars(axis, bars, width)
    if parts.empty:
        style: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": theme.SMALL_TEXT_SIZE}
        where = axis.transAxes
        axis.text(0.5, 0.56, "no jump beyond noise", transform=where, color=theme.GREY, **style)


def _draw_bars(axis: Axes, bars: list[tuple[float, float, float, str]], width: float) -> None:
    """Draw bars of several kinds in their order: one by one takes three times as long."""
    if not bars:
        return
    places, heights, bottoms, kinds = zip(*bars, strict=True)
    colours, hatches = zip(*(_FILLINGS[kind] for kind in kinds), strict=True)
    drawn = axis.bar(
        places,
        heights,
        width,
        bottoms,
        color=colours,
        edgecolor="black",
        linewidth=0.6,
        hatch=hatches,
    )
    for kind in dict.fromkeys(kinds):  # for the legend
        axis.add_container(BarContainer([drawn[kinds.index(kind)]], label=kind))


def set_common_range(axes: list[Axes]) -> None:
    """Give all panels of jumps the same vertical axis, with zero inside it."""
    ends = [end for axis in axes for end in axis.dataLim.intervaly if abs(end) < 1e3]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.08 * (high - low) or 1.0
    for axis in axes:
        axis.set_ylim(low - margin, high + margin)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:+.0f}" if value else "0")
