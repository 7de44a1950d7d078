"""Draws the overview: accuracy by epoch and its jumps, above gradients by depth and epoch."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from analyses.overview.gap_label import name_gaps
from analyses.overview.jump_parts import draw_parts, set_common_range
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
MAX_THICK_EPOCHS = 60  # epochs: a longer curve is drawn thinner
_DARK_OUTLINE = [effects.withStroke(linewidth=2.2, foreground="black", alpha=0.55)]
# Fill, edge and size of the triangle of a change: rise and fall differ in grey print too.
_RISE: dict[str, Any] = {"marker": "^", "mfc": "white", "mec": "black", "ms": 5.5, "mew": 0.9}
_FALL: dict[str, Any] = {"marker": "v", "mfc": "black", "mec": "white", "ms": 6.5, "mew": 0.5}


# Heights in inches of the panels of a network, from top to bottom: a PDF's first page has no room
# for more.
_HEIGHTS = {"accuracy": 1.5, "jumps": 0.7, "gradients": 1.75}
_NARROW_SHARE = 1.15  # of these heights: a phone's page may be long
_HEIGHT_OF_THE_REST = 0.75  # inches, of the legend and the colour bar


@theme.themed
def draw_overview(
    networks: list[str], shown: Sequence[NetworkOverview], *, narrow: bool = False
) -> Drawing:
    """One column per network: accuracy by epoch and its jumps, if recorded, above gradients.

    If `narrow`, the networks stand below each other, for the width of a phone.
    """
    kinds = _kinds(shown)
    across = 1 if narrow else min(len(shown), MAX_COLUMNS)
    row_groups = -(-len(shown) // across)
    heights = [_HEIGHTS[kind] * (_NARROW_SHARE if narrow else 1) for kind in kinds]
    figure, axes = panels.subplots(
        row_groups * len(kinds),
        across,
        row_groups * sum(heights) + _HEIGHT_OF_THE_REST * (2 if narrow else 1),
        theme.NARROW_WIDTH if narrow else theme.WIDTH,
        gridspec_kw={"height_ratios": heights * row_groups},
    )
    for axis in axes.flat:
        axis.set_visible(False)
    drawn = _Panels(networks, shown, kinds, across, as_pixels=narrow)
    for place in range(len(shown)):
        first = place // across * len(kinds)
        column = place % across
        own = list(axes[first : first + len(kinds), column])
        drawn.draw_network(place, own, first_column=not column)
    drawn.set_common_scales()
    _colour_bar(figure, drawn.map, drawn.axes["gradients"], narrow=narrow)
    upper = [*drawn.axes["accuracy"], *drawn.axes["jumps"]]
    panels.legend(figure, upper, columns=1 if narrow else 3, above=True)
    return figure


def _kinds(shown: Sequence[NetworkOverview]) -> list[str]:
    """The kinds of panel of each network, from top to bottom."""
    with_curves = any(one.curves["accuracy"].notna().any() for one in shown)
    with_parts = any(one.marked["fresh_change"].notna().any() for one in shown)
    return ["accuracy"] * with_curves + ["jumps"] * with_parts + ["gradients"]


class _Panels:
    """Draws the panels of each network and keeps them by kind, for what they have in common."""

    def __init__(
        self,
        networks: list[str],
        shown: Sequence[NetworkOverview],
        kinds: Sequence[str],
        across: int,
        *,
        as_pixels: bool,
    ) -> None:
        self.axes: dict[str, list[Axes]] = {"accuracy": [], "jumps": [], "gradients": []}
        self.map: Any = None
        self._palette = theme.colours(networks)
        self._shown = shown
        self._kinds = kinds
        self._across = across
        # A page has the paths of the wide drawing already: those of a second one would be a burden.
        self._as_pixels = as_pixels
        self._maps = [one.gradients.where(one.gradients > 0) for one in shown]
        self._norm = panels.log_colours(self._maps)
        self._alike = all(one.stages.equals(shown[0].stages) for one in shown)

    def draw_network(self, place: int, own: list[Axes], *, first_column: bool) -> None:
        """Draw the network at `place` into its column of axes, `own`."""
        one = self._shown[place]
        _set_title(own[0], one.network)
        for kind, axis in zip(self._kinds, own, strict=True):
            axis.set_visible(True)
            self.axes[kind].append(axis)
            if kind == "accuracy":
                _draw_accuracy(axis, one, self._palette)
                label = "accuracy"
            elif kind == "jumps":
                draw_parts(axis, one)
                label = "jump\n(points)"
            else:
                self.map = _draw_gradients(axis, one, self._maps[place], self._norm)
                if self._as_pixels:
                    self.map.set_rasterized(True)
                label = "layers from the input"
            if first_column:
                axis.set_ylabel(label)
            _set_epoch_axis(axis, one)
            if kind != "gradients":
                axis.tick_params(labelbottom=False)
                axis.set_xlabel("")
        last = place % self._across == self._across - 1 or place == len(self._shown) - 1
        if last or not self._alike:
            _name_stages(own[-1], one.stages, len(self._maps[place]))

    def set_common_scales(self) -> None:
        """Give the panels of a kind the same vertical axis, and name what stale statistics cost."""
        _set_common_scale(self.axes["accuracy"])
        if self.axes["accuracy"]:
            name_gaps(self.axes["accuracy"], self._shown)
        if self.axes["jumps"]:
            set_common_range(self.axes["jumps"])


def _set_title(axis: Axes, network: str) -> None:
    short = network if len(network) <= MAX_NAME_LENGTH else f"{network[: MAX_NAME_LENGTH - 1]}…"
    axis.set_title(short, parse_math=False, fontweight="bold")


def _draw_accuracy(axis: Axes, one: NetworkOverview, palette: dict[str, str]) -> None:
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


def _draw_change_marks(axis: Axes, one: NetworkOverview) -> None:
    """A triangle at each change beyond noise."""
    for sign, label, style in ((1, "rise beyond noise", _RISE), (-1, "fall beyond noise", _FALL)):
        part = one.marked[one.marked["change"] * sign > 0]
        if len(part):
            axis.plot(part["epoch"], part["accuracy"], ls="", label=label, zorder=5, **style)


def _draw_gradients(axis: Axes, one: NetworkOverview, matrix: pd.DataFrame, norm: Any) -> Any:
    drawn = panels.heat_map(axis, matrix, norm, "viridis", axis.get_title())
    drawn.set_rasterized(matrix.size > MAX_VECTOR_CELLS)
    for boundary in stage_boundaries(one.stages):
        axis.axhline(boundary, color="white", lw=0.7)
    _draw_change_lines(axis, one.marked)
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


def _set_common_scale(axes: list[Axes]) -> None:
    if not axes:
        return
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(max(low, -0.02), min(high, 1.03))
        panels.percent_axis(axis)


def _colour_bar(figure: Drawing, drawn: Any, axes: list[Axes], *, narrow: bool) -> None:
    label = "gradient at a layer's output (root mean square)"
    options = {"location": "bottom", "aspect": 50, "pad": 0.03, "fraction": 0.04}
    if narrow:
        options |= {"aspect": 30, "fraction": 0.02, "pad": 0.01}
    bar = panels.colour_bar(figure, drawn, axes, label, **options)
    panels.few_ticks_if_narrow(bar.ax.xaxis, drawn.norm.vmax / drawn.norm.vmin)
    span = drawn.norm.vmax / drawn.norm.vmin
    if span >= ALL_TICKS_SPAN:
        # Ticks at powers of ten only would be few, and more than one between them would overlap.
        bar.ax.xaxis.set_minor_locator(LogLocator(subs=(3,)))
        every = LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf))
        bar.ax.xaxis.set_minor_formatter(every if span < ALL_TICKS_SPAN**2 else NullFormatter())
