"""Draws the overview: accuracy by epoch above, gradients by depth and epoch below."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from analyses.overview.measure import NetworkOverview
from analyses.plotting import panels, theme

MAX_COLUMNS = 3  # networks side by side; others go into further rows
MAX_VECTOR_CELLS = (
    3000  # a larger heat map is drawn as pixels, since paths would make the page large
)
MAX_LINES = 30  # across a panel, of marked epochs or of stages: more would hide the heat map
TICK_HEIGHT = 0.05  # of the panel's height, for the line of a change that is not drawn across it
ALL_TICKS_SPAN = 10  # largest over smallest colour; below it every tick of the scale has a number
MIN_STAGE_SHARE = 0.05  # of the rows: smaller stages have no label of their shape
MAX_NAME_LENGTH = 34
NAMED_GAP = 0.05  # of accuracy: a larger loss to stale statistics is named in the panel
MAX_THICK_EPOCHS = 60  # epochs: a longer curve is drawn thinner
_DARK_OUTLINE = [effects.withStroke(linewidth=2.2, foreground="black", alpha=0.55)]
# Fill, edge and size of the triangle of a change: rise and fall differ in grey print too.
_RISE: dict[str, Any] = {"marker": "^", "mfc": "white", "mec": "black", "ms": 5.5, "mew": 0.9}
_FALL: dict[str, Any] = {"marker": "v", "mfc": "black", "mec": "white", "ms": 6.5, "mew": 0.5}
_STALE: dict[str, Any] = {"mfc": "#c4c4c4", "mec": "#6b6b6b", "mew": 0.6, "ms": 5}


@theme.themed
def draw_overview(networks: list[str], shown: Sequence[NetworkOverview]) -> Drawing:
    """One column per network: accuracy by epoch, if recorded, above gradients by depth."""
    with_curves = any(one.curves["accuracy"].notna().any() for one in shown)
    heights = [1.0, 1.45] if with_curves else [1.45]
    across = min(len(shown), MAX_COLUMNS)
    row_groups = -(-len(shown) // across)
    figure, axes = panels.subplots(
        row_groups * len(heights),
        across,
        row_groups * (1.75 * sum(heights)) + 0.75,
        gridspec_kw={"height_ratios": heights * row_groups},
    )
    for axis in axes.flat:
        axis.set_visible(False)
    maps = [one.gradients.where(one.gradients > 0) for one in shown]
    norm = panels.log_colours(maps)
    alike = all(one.stages.equals(shown[0].stages) for one in shown)
    drawn: Any = None
    rows = iter(axes)
    accuracies: list[Axes] = []
    for first in range(0, len(shown), across):
        places = range(first, min(first + across, len(shown)))
        if with_curves:
            upper = next(rows)[: len(places)]
            for axis, place in zip(upper, places, strict=True):
                _draw_accuracy(axis, shown[place], theme.colours(networks))
            accuracies += list(upper)
        for column, (axis, place) in enumerate(zip(next(rows), places, strict=False)):
            drawn = _draw_gradients(axis, shown[place], maps[place], norm)
            if not alike or column == across - 1 or place == len(shown) - 1:
                _name_stages(axis, shown[place].stages, len(maps[place]))
            if column == 0:
                axis.set_ylabel("depth (layers from the input)")
            if not with_curves:
                _set_title(axis, shown[place].network)
    _set_common_scale(accuracies, across)
    lowest = [axis for axis in axes.flat if axis.get_visible() and axis not in accuracies]
    _colour_bar(figure, drawn, lowest)
    panels.legend(figure, accuracies, columns=3, above=True)
    return figure


def _set_title(axis: Axes, network: str) -> None:
    short = network if len(network) <= MAX_NAME_LENGTH else f"{network[: MAX_NAME_LENGTH - 1]}…"
    axis.set_title(short, parse_math=False, fontweight="bold")


def _draw_accuracy(axis: Axes, one: NetworkOverview, palette: dict[str, str]) -> None:
    axis.set_visible(True)
    _set_title(axis, one.network)
    colour = palette[one.network]
    known = one.curves.dropna(subset="accuracy")
    seeds = [curve for _, curve in known.groupby("seed", sort=False)]
    marker = "." if known["epoch"].nunique() < 3 else ""
    training = one.curves.groupby("epoch")["train_accuracy"].mean().dropna()
    style: dict[str, Any] = {"color": theme.GREY, "lw": 0.9, "marker": marker}
    axis.plot(training.index, training, ":", label="training accuracy", **style)
    if len(seeds) > 1:
        for curve in seeds:
            axis.plot(curve["epoch"], curve["accuracy"], color=colour, lw=0.6, alpha=0.6)
        mean = known.groupby("epoch", as_index=False)[["accuracy"]].mean()
    else:
        mean = known[["epoch", "accuracy", "low", "high"]].astype(float)
    if len(mean):
        label = "validation accuracy" if len(seeds) < 2 else "validation accuracy, mean of seeds"
        width = 1.8 if len(mean) <= MAX_THICK_EPOCHS else 1.0
        panels.curve(axis, mean, "epoch", "accuracy", color=colour, lw=width, marker=marker)
        # The colour differs between panels, but there is one legend for all.
        axis.plot([], [], color="black", lw=1.8, label=label)
    else:
        style = {"ha": "right", "color": theme.GREY, "fontsize": theme.SMALL_TEXT_SIZE}
        axis.text(0.98, 0.04, "no validation accuracy", transform=axis.transAxes, **style)
    _draw_gap(axis, known, colour)
    _draw_change_marks(axis, one)
    _set_epoch_axis(axis, one)
    axis.tick_params(labelbottom=False)


def _draw_gap(axis: Axes, known: pd.DataFrame, colour: str) -> None:
    """The accuracy with re-estimated statistics, and what is lost to stale ones, means of seeds."""
    compared = known.dropna(subset=["accuracy", "fresh"])  # the same seeds in both means
    both = compared.groupby("epoch")[["accuracy", "fresh"]].mean().astype(float)
    if both.empty:
        return
    line: dict[str, Any] = {"color": colour, "lw": 1.3, "ms": 3, "mfc": "white", "marker": "o"}
    if len(both) > MAX_THICK_EPOCHS:
        line["marker"] = ""
    axis.plot(both.index, both["fresh"], ls=(0, (4, 1.5)), **line)
    where = both["fresh"] > both["accuracy"]
    look: dict[str, Any] = {"color": colour, "alpha": 0.25, "lw": 0, "interpolate": True}
    axis.fill_between(both.index, both["accuracy"], both["fresh"], where=where, **look)
    black = line | {"color": "black", "mec": "black"}
    axis.plot([], [], ls=(0, (4, 1.5)), label="the same weights, fresh statistics", **black)
    gap = both["fresh"] - both["accuracy"]
    if gap.max() >= NAMED_GAP:
        _name_gap(axis, both, gap)


def _name_gap(axis: Axes, both: pd.DataFrame, gap: pd.Series) -> None:
    """Write beside the largest gap what it is, on the side with more room."""
    epoch = float(gap.idxmax())
    first, last = float(both.index[0]), float(both.index[-1])
    right = epoch - first <= last - epoch
    low = float(both.loc[epoch, "accuracy"])
    # The difference of the accuracies as they are written elsewhere, with one decimal.
    lost = round(100 * float(both.loc[epoch, "fresh"]), 1) - round(100 * low, 1)
    axis.annotate(
        f"{lost:.1f} points lost to\nstale batch-norm statistics",
        (epoch, low + 0.25 * float(gap.max())),
        xytext=(0.97 if right else 0.03, 0.04),
        textcoords="axes fraction",
        ha="right" if right else "left",
        va="bottom",
        fontsize=theme.SMALL_TEXT_SIZE,
        arrowprops={"arrowstyle": "-", "lw": 0.7, "color": "black"},
        bbox={"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85},
        zorder=6,
    )


def _draw_change_marks(axis: Axes, one: NetworkOverview) -> None:
    """A triangle at each change beyond noise, and what it was made of, if that was measured."""
    marked = one.marked
    left = ", with fresh statistics too" if one.re_estimated else " beyond noise"
    for sign, word, style in ((1, "rise", _RISE), (-1, "fall", _FALL)):
        for stale in (False, True):
            part = marked[(marked["change"] * sign > 0) & (marked["stale"] == stale)]
            label = "by stale statistics alone" if stale else f"{word}{left}"
            if len(part):
                look = style | _STALE if stale else style
                axis.plot(part["epoch"], part["accuracy"], ls="", label=label, zorder=5, **look)


def _draw_gradients(axis: Axes, one: NetworkOverview, matrix: pd.DataFrame, norm: Any) -> Any:
    axis.set_visible(True)
    drawn = panels.heat_map(axis, matrix, norm, "viridis", "")
    drawn.set_rasterized(matrix.size > MAX_VECTOR_CELLS)
    for boundary in stage_boundaries(one.stages):
        axis.axhline(boundary, color="white", lw=0.7)
    _draw_change_lines(axis, one.marked)
    _set_epoch_axis(axis, one)
    return drawn


def stage_boundaries(stages: pd.DataFrame) -> list[float]:
    """Where lines separate the stages; none if they would hide the heat map."""
    boundaries = [float(first) - 0.5 for first in stages["first"].iloc[1:]]
    return boundaries if len(boundaries) <= MAX_LINES else []


def _draw_change_lines(axis: Axes, marked: pd.DataFrame) -> None:
    """A line at each marked epoch; a short one if re-estimated statistics remove the change."""
    real = marked[~marked["stale"].astype(bool)]
    falls = set(real.loc[real["change"] < 0, "epoch"])
    whole = set(real["epoch"]) if real["epoch"].nunique() <= MAX_LINES else set()
    for epoch in sorted(set(marked["epoch"])):
        style = (0, (1, 2)) if epoch in whole - falls else "-"
        start = 0 if epoch in whole else 1 - TICK_HEIGHT
        axis.axvline(epoch, start, color="white", lw=1, ls=style, path_effects=_DARK_OUTLINE)


def _set_epoch_axis(axis: Axes, one: NetworkOverview) -> None:
    """Give both panels of a network the same epochs on the x-axis."""
    epochs = [*one.gradients.columns, *one.curves["epoch"].dropna()]
    panels.epoch_axis(axis)
    axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)


def _name_stages(axis: Axes, stages: pd.DataFrame, rows: int) -> None:
    for stage in stages.itertuples():
        if (stage.last - stage.first + 1) / rows >= MIN_STAGE_SHARE:
            axis.annotate(
                str(stage.shape),
                (1.015, (stage.first + stage.last) / 2),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=6,
                color=theme.GREY,
                parse_math=False,
            )


def _set_common_scale(axes: list[Axes], across: int) -> None:
    if not axes:
        return
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for place, axis in enumerate(axes):
        axis.set_ylim(max(low, -0.02), min(high, 1.03))
        panels.percent_axis(axis)
        axis.set_xlabel("")
        if place % across == 0:
            axis.set_ylabel("accuracy")


def _colour_bar(figure: Drawing, drawn: Any, axes: list[Axes]) -> None:
    label = "root mean square of the gradient with respect to a layer's output"
    options = {"location": "bottom", "aspect": 50, "pad": 0.03, "fraction": 0.04}
    bar = panels.colour_bar(figure, drawn, axes, label, **options)
    panels.few_ticks_if_narrow(bar.ax.xaxis, drawn.norm.vmax / drawn.norm.vmin)
    span = drawn.norm.vmax / drawn.norm.vmin
    if span >= ALL_TICKS_SPAN:
        # Ticks at powers of ten only would be few, and labels on all minor ticks would overlap.
        bar.ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        every = LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf))
        bar.ax.xaxis.set_minor_formatter(every if span < ALL_TICKS_SPAN**2 else NullFormatter())
