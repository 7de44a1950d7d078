"""The figure of a comparison of two runs: changes of every quantity by depth."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.comparison.measure import Margins
from analyses.plotting import panels, theme
from analyses.result import Figure
from analyses.wording.phrases import listing

CHANGED_COLOUR, UNCHANGED_COLOUR = theme.colours(["first", "second"])["second"], theme.GREY
COLUMNS = 2
PANEL_HEIGHT = 1.9  # inches


def changes_by_depth(names: tuple[str, str], changes: pd.DataFrame, margins: Margins) -> Figure:
    """Ratios, or differences of fractions, by depth: one panel per quantity."""
    changed = changes[changes["changed"]]
    by_quantity = changed.groupby("quantity", sort=False).size().sort_values(ascending=False)
    if len(by_quantity):
        total = int((changes["quantity"] == by_quantity.index[0]).sum())
        title = (
            f"{names[1]} over {names[0]}: {by_quantity.index[0]} changed at {by_quantity.iloc[0]} "
            f"of {total} layers or parameters"
        )
    else:
        title = f"{names[1]} and {names[0]}: no layer changed by more than {margins.ratio:g} times"
    quantities = changes.groupby("quantity", sort=False)["effect"].agg(lambda one: one.abs().max())
    alike = [str(name) for name in quantities.index[~(quantities > 0)]]
    shown = changes[~changes["quantity"].isin(alike)] if len(alike) < len(quantities) else changes
    apart = (
        f" Equal in both runs, not drawn: {listing(alike)}." if len(shown) < len(changes) else ""
    )
    return Figure(
        key="changes-by-depth",
        title=title,
        caption=(
            f"Each point is a layer or parameter: {names[1]} over {names[0]} (ratios, logarithmic "
            f"axis) or {names[1]} less {names[0]} (points), averaged over common steps, "
            "by depth in the first run. Bars: 95 % intervals from batch means. Dotted: a factor "
            f"of {margins.ratio:g}, or {100 * margins.fraction:g} points. Filled: changed by more "
            f"than that, at a false-discovery rate of {margins.alpha:g} over all quantities; open: "
            f"not.{apart}"
        ),
        alt=f"Changes between two runs by depth, one panel per quantity. {title}.",
        draw=partial(_draw, shown, margins),
    )


@theme.themed
def _draw(changes: pd.DataFrame, margins: Margins) -> Drawing:
    quantities = list(changes["quantity"].drop_duplicates())
    rows = -(-len(quantities) // COLUMNS)
    figure, axes = panels.subplots(rows, COLUMNS, PANEL_HEIGHT * rows + 0.4, sharex=True)
    for axis in axes.flat[len(quantities) :]:
        axis.set_visible(False)
    for axis, quantity in zip(axes.flat, quantities, strict=False):
        _panel(axis, changes[changes["quantity"] == quantity], margins)
        axis.set_title(quantity)
    for index in range(len(quantities)):
        if index + COLUMNS >= len(quantities):
            axes.flat[index].tick_params(labelbottom=True)
            panels.epoch_axis(axes.flat[index], "depth (weighted layers)")
    panels.legend(figure, list(axes.flat))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, margins: Margins) -> None:
    ratio = bool(rows["ratio"].iloc[0])
    shown = rows.dropna(subset=["effect", "depth"])
    scale = np.exp if ratio else (lambda values: 100 * values)
    for changed, colour, label in (
        (False, UNCHANGED_COLOUR, "not changed"),
        (True, CHANGED_COLOUR, "changed"),
    ):
        part = shown[shown["changed"] == changed]
        low, middle, high = (
            np.asarray(scale(part[name].to_numpy(dtype=float)))
            for name in ("low", "effect", "high")
        )
        style: dict[str, Any] = {"color": colour, "linewidth": 0.7, "alpha": 0.45, "zorder": 1}
        axis.vlines(part["depth"], low, high, **style)
        face: dict[str, Any] = {
            "mfc": colour if changed else "white",
            "mec": colour,
            "mew": 0.7,
            "ms": 3,
        }
        axis.plot(part["depth"], middle, "o", label=label, zorder=2, **face)
    if ratio:
        axis.set_yscale("log")
        ends = shown[["low", "high", "effect"]].to_numpy(dtype=float)
        ends = ends[np.isfinite(ends)]
        span = float(np.exp(ends.max() - ends.min())) if len(ends) else 1.0
        panels.plain_log_ticks(axis.yaxis, span)
    panels.level_line(axis, 1.0 if ratio else 0.0)
    for end in (-margins.of(ratio), margins.of(ratio)):
        panels.level_line(axis, float(scale(end)), style=":")
    axis.set_ylabel("ratio" if ratio else "difference (points)")
