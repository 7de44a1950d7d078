"""Draws what each jump of accuracy was made of: a change of the weights, and stale statistics."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analyses.overview.measure import NetworkOverview
from analyses.plotting import theme

BAR_WIDTH = 0.62  # of an epoch, for the bars of all seeds
POINTS = 100  # of accuracy: points of a percentage
# In grey they differ too: filled, hatched, and without filling.
WEIGHTS: dict[str, Any] = {"fc": "#5f5f5f", "ec": "black", "lw": 0.6}
STALE: dict[str, Any] = {"fc": "white", "ec": "black", "lw": 0.6, "hatch": "/////"}
_UNKNOWN: dict[str, Any] = {"fc": "none", "ec": "black", "lw": 0.6}


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
    for bar in parts.itertuples():
        place = bar.epoch + (seeds.index(str(bar.seed)) - (len(seeds) - 1) / 2) * width
        if pd.isna(bar.stale):
            axis.bar(place, bar.change, width, label="jump, not split", **_UNKNOWN)
            continue
        stacked = bar.weights if bar.weights * bar.stale > 0 else 0.0
        axis.bar(place, bar.weights, width, label="part of a jump: the weights", **WEIGHTS)
        stale = "part of a jump: stale statistics"
        axis.bar(place, bar.stale, width, bottom=stacked, label=stale, **STALE)
    if parts.empty:
        style: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": theme.SMALL_TEXT_SIZE}
        where = axis.transAxes
        axis.text(0.5, 0.56, "no jump beyond noise", transform=where, color=theme.GREY, **style)


def set_common_range(axes: list[Axes]) -> None:
    """Give all panels of jumps the same vertical axis, with zero inside it."""
    ends = [end for axis in axes for end in axis.dataLim.intervaly if abs(end) < 1e3]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.08 * (high - low) or 1.0
    for axis in axes:
        axis.set_ylim(low - margin, high + margin)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:+.0f}" if value else "0")
