"""The figures of scaled skips: accuracy and gradient ratio by alpha."""

from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.skips.scaling.measure import ALL_SKIPS, ScalingResponse
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said, message

_STAGE_MARKERS = ("^", "D", "v", "P", "X", "*")


def scaling_figures(networks: list[str], found: list[ScalingResponse]) -> tuple[Figure, ...]:
    """The figures of `found`; `networks` in the order of the experiment gives the colors."""
    figures = [_accuracy_figure(networks, found)]
    if any(one.rows["log_ratio"].notna().any() for one in found):
        figures.append(_ratio_figure(networks, found))
    return tuple(figures)


def _ends(one: ScalingResponse, column: str) -> tuple[float, float] | None:
    """`column` with all skips at the lowest scale and at scale 1; None if not finite."""
    rows = one.rows[one.rows["scope"] == ALL_SKIPS].set_index("scale")[column]
    if not {1.0, one.lowest} <= set(rows.index):
        return None
    low, high = float(rows[one.lowest]), float(rows[1.0])
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def _accuracy_figure(networks: list[str], found: list[ScalingResponse]) -> Figure:
    said = [
        Said(
            "{low} at alpha = {alpha}, {high} at 1 in {network}",
            low=percent(ends[0]),
            alpha=number(one.lowest),
            high=percent(ends[1]),
            network=one.network,
        )
        for one in found
        if (ends := _ends(one, "accuracy")) is not None
    ]
    title = (
        Said("Accuracy with all skips scaled: {ends}", ends=listing(said))
        if said
        else message("Accuracy with the skips of a stage or block scaled")
    )
    return Figure(
        key="dose-response",
        title=title,
        caption=(
            "Validation accuracy against alpha, the factor of the skips, at the last epoch "
            "measured, weights unchanged. Left: all skips, with re-estimated batch-norm "
            "statistics (solid; band: 95 % interval) and with running ones (dashed). Right: the "
            "skips of one stage, re-estimated statistics."
        ),
        alt=f"Accuracy against the scale of the skips. {title}.",
        draw=partial(_draw_accuracy, networks, found),
    )


@theme.themed
def _draw_accuracy(networks: list[str], found: list[ScalingResponse]) -> Drawing:
    figure, axes = panels.subplots(len(found), 2, 0.4 + 2.5 * len(found), sharey=True)
    palette = theme.colours(networks)
    for pair, one in zip(axes, found, strict=True):
        whole = _scope(one, ALL_SKIPS)
        color = palette[one.network]
        label = "all skips, re-estimated statistics"
        panels.curve(pair[0], whole, "scale", "accuracy", color=color, marker="o", label=label)
        style = {"color": color, "marker": "o", "mfc": "white", "ms": 3.5, "ls": "--"}
        running = "all skips, running statistics"
        pair[0].plot(whole["scale"], whole["running"], label=running, **style)
        _stages(pair[1], one, "accuracy", banded=True)
        pair[0].set_title(f"{one.network}, epoch {one.epoch}: all skips")
        pair[1].set_title(f"{one.network}, epoch {one.epoch}: one stage")
        pair[0].set_ylabel("validation accuracy")
        for axis in pair:
            panels.percent_axis(axis)
            axis.set_xlabel("alpha")
    panels.legend(figure, list(axes.flat))
    return figure


def _ratio_figure(networks: list[str], found: list[ScalingResponse]) -> Figure:
    said = [
        f"{number(float(np.exp(ends[0] - ends[1])))} times in {one.network}"
        for one in found
        if (ends := _ends(one, "log_ratio")) is not None
    ]
    title = (
        f"Without skips the first-to-last gradient ratio changes {listing(said)}"
        if said
        else "The first-to-last gradient ratio with scaled skips"
    )
    return Figure(
        key="gradient-ratio",
        title=title,
        caption=(
            "Norm of the gradient at the first block's input over that at the last block's output, "
            "against alpha; all skips (thick) or those of one stage. Geometric mean over "
            "seeds; one batch, so without interval."
        ),
        alt=f"Gradient ratio against the scale of the skips. {title}.",
        draw=partial(_draw_ratio, networks, found),
        length=Length.FULL,
    )


@theme.themed
def _draw_ratio(networks: list[str], found: list[ScalingResponse]) -> Drawing:
    palette = theme.colours(networks)
    titles = [f"{one.network}, epoch {one.epoch}" for one in found]
    labels = ("gradient norm, first / last", "alpha")
    with panels.row(titles, 2.7, *labels, columns=5, whole=False) as (figure, axes):
        for axis, one in zip(axes, found, strict=True):
            whole = _scope(one, ALL_SKIPS)
            style: dict[str, Any] = {"color": palette[one.network], "marker": "o", "lw": 2.2}
            axis.plot(whole["scale"], np.exp(whole["log_ratio"]), label="all skips", **style)
            _stages(axis, one, "log_ratio", banded=False)
            panels.log_axis(axis, list(np.exp(one.rows["log_ratio"])))
    return figure


def _scope(one: ScalingResponse, scope: str) -> pd.DataFrame:
    return one.rows[one.rows["scope"] == scope]


def _stages(axis: Axes, one: ScalingResponse, column: str, banded: bool) -> None:
    stages = sorted(one.scopes("stage"))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, max(len(stages), 1)))
    for place, stage in enumerate(stages):
        rows = _scope(one, stage)
        values = np.exp(rows[column]) if column == "log_ratio" else rows[column]
        marker = _STAGE_MARKERS[place % len(_STAGE_MARKERS)]
        style = {"color": shades[place], "marker": marker, "ms": 3.5, "lw": 1.1}
        axis.plot(rows["scale"], values, label=stage, **style)
        if banded:
            ends = (rows["low"].to_numpy(dtype=float), rows["high"].to_numpy(dtype=float))
            axis.fill_between(rows["scale"], *ends, color=shades[place], alpha=0.1, linewidth=0)
