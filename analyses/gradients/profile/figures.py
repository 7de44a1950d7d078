"""The figures of the gradient profile: by depth, by epoch, and both at once."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.gradients.profile.measure import GradientProfile, raw_ratio
from analyses.plotting import panels, theme
from analyses.plotting.step_maps import draw_layers_by_step, medians_by_step
from analyses.reading.depth_bins import DepthBins, caption_end, depth_bins
from analyses.reading.layer_gradients import medians_by_epoch
from analyses.result import Figure, Length
from analyses.statistics import Array
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said

Bounds = tuple[float, float]


def gradient_figures(
    networks: list[str],
    profiles: list[GradientProfile],
    bounds: Bounds,
    title: str,
    *,
    by_step: bool,
) -> tuple[Figure, ...]:
    """The figures of the profiles; `bounds` are for vanishing and exploding, over the depth.

    The map is by named layer and step if `by_step`, otherwise by depth and epoch.
    """
    return (
        _factor_figure(networks, profiles, bounds, title),
        _depth_figure(networks, profiles),
        _step_map_figure(profiles) if by_step else _map_figure(profiles),
    )


def epoch_norms(one: GradientProfile) -> pd.DataFrame:
    """Median norm by layer and epoch over all steps and seeds: rows depth, columns epoch."""
    return medians_by_epoch([seed.norms for seed in one.seeds], one.seeds[0].layers["depth"])


def layer_bins(one: GradientProfile) -> DepthBins:
    """The bins in which figures show the layers: of few layers, each has its own."""
    return depth_bins(list(one.seeds[0].layers["layer"]))


def _factor_figure(
    networks: list[str], profiles: list[GradientProfile], bounds: Bounds, title: str
) -> Figure:
    caption = (
        "Factor by which the gradient norm changes per layer toward the input, by epoch; above 1 "
        "it grows, below 1 it shrinks. Band: 95 % interval. Epoch 0 with an open marker is the "
        f"first step. Dotted: {number(bounds[0])} and {number(bounds[1])} over the depth of the "
        "deepest network, the bounds of vanishing and exploding."
    )
    expected = [one for one in profiles if one.theory is not None]
    if expected:
        caption += (
            " Dashed: what theory gives at initialization ("
            + "; ".join(f"{one.network}: {one.theory.name}" for one in expected if one.theory)
            + "), for wide plain networks; for residual ones a landmark only."
        )
    return Figure(
        key="factor-by-epoch",
        title=title,
        caption=caption,
        alt=f"Factor of the gradient norm per layer by epoch. {title}",
        draw=partial(_draw_factor, networks, profiles, bounds),
        length=Length.FULL,
    )


@theme.themed
def _draw_factor(networks: list[str], profiles: list[GradientProfile], bounds: Bounds) -> Drawing:
    styles = theme.styles(networks)
    with panels.panel(3.0, "factor per layer\ntoward the input") as (figure, axis):
        for one in profiles:
            style = styles[one.network]
            panels.curve(axis, one.epochs, "epoch", "factor", label=one.network, **style)
            if one.first is not None:
                axis.plot([0], [one.first], linestyle="", mfc="white", **style)
        _draw_bounds(axis, bounds, max(one.depth for one in profiles))
        for height in sorted({one.theory.factor for one in profiles if one.theory is not None}):
            panels.level_line(axis, height, "theory at initialization")
        axis.axhline(1, color="black", linewidth=0.6)
        axis.margins(y=0.12)
    return figure


def _draw_bounds(axis: Axes, bounds: Bounds, depth: int) -> None:
    """Draw the factors per layer that reach `bounds` over the depth."""
    for bound, name in zip(bounds, ("vanishing below", "exploding above"), strict=True):
        height = bound ** (1 / depth)
        panels.level_line(axis, height, style=":")
        side = "top" if name.startswith("vanishing") else "bottom"
        axis.annotate(
            name,
            (1, height),
            xycoords=("axes fraction", "data"),
            ha="right",
            va=side,
            color=theme.GREY,
            fontsize=theme.SMALL_TEXT_SIZE,
        )


def _depth_figure(networks: list[str], profiles: list[GradientProfile]) -> Figure:
    names = listing([one.network for one in profiles])
    ends = [
        f"{number(ratio)} in {one.network}"
        for one in profiles
        if (ratio := raw_ratio(one)) is not None
    ]
    title = f"Raw gradient norm of the first layer over the last: {listing(ends)}" if ends else (
        f"Gradient by depth of {names}"
    )  # fmt: skip
    weights = any(len(one.weights) for one in profiles)
    caption = (
        "Left: L2 norm of the gradient with respect to each layer's output, at the first step "
        "(dashed; median of the first epoch where that was not recorded) and as the median of the "
        "last epoch (solid). Steps between stages come from the size of the output, not from "
        "vanishing."
    )
    if any(_theory_lines(one) for one in profiles):
        caption += (
            " Dotted: what theory gives for the first step of plain networks, drawn anew through "
            "the last layer of each output shape."
        )
    if weights:
        caption += (
            " Right: norm of the gradient of each layer's weight, over all steps of one seed; it "
            "can look level while the left one vanishes (Glorot & Bengio 2010)."
        )
    caption += caption_end(map(layer_bins, profiles), with_band=True)
    return Figure(
        key="norm-by-depth",
        title=title,
        caption=caption,
        alt=f"Norms of gradients by depth for {names}.",
        draw=partial(_draw_depth, networks, profiles, weights),
        length=Length.FULL,
    )


@theme.themed
def _draw_depth(networks: list[str], profiles: list[GradientProfile], weights: bool) -> Drawing:
    figure, axes = panels.subplots(1, 2 if weights else 1, 2.9)
    styles = theme.styles(networks)
    for one in profiles:
        style = styles[one.network]
        _draw_outputs(axes[0, 0], one, style["color"])
        if weights:
            height = one.weights["norm"].where(one.weights["norm"] > 0)
            shown = depth_bins(list(one.weights["layer"])).curve(one.weights["depth"], height)
            panels.curve(axes[0, 1], shown, "x", "value", lw=1, **style)
    titles = ("of the layers' outputs", "of the layers' weights")
    for axis, title in zip(axes.flat, titles, strict=False):
        values = [value for line in axis.lines for value in np.asarray(line.get_ydata())]
        panels.log_axis(axis, values)
        axis.set_title(f"gradient {title}")
        axis.set_xlabel("depth (layers from the input)")
    axes[0, 0].set_ylabel("gradient norm (L2)")
    panels.legend(figure, list(axes.flat))
    return figure


def _draw_outputs(axis: Axes, one: GradientProfile, colour: str) -> None:
    """Draw norms of the outputs' gradients at the start and the end, and theory if it applies."""
    norms = epoch_norms(one)
    last = norms.columns[-1]
    curves = [(norms[last], "-", f"epoch {last}")]
    if one.start is not None:
        curves.insert(0, (pd.Series(one.start, index=norms.index), "--", "first step"))
    elif len(norms.columns) > 1:
        first = norms.columns[0]
        curves.insert(0, (norms[first], "--", f"epoch {first}"))
    for values, line, name in curves:
        positive = values.where(values > 0)  # a logarithmic axis cannot show zero
        shown = layer_bins(one).curve(norms.index, positive)
        style = {"linestyle": line, "color": colour, "label": f"{one.network}, {name}"}
        panels.curve(axis, shown, "x", "value", lw=1.2, **style)
    for index, (depth, height) in enumerate(_theory_lines(one)):
        label = None if index else f"{one.network}, theory"
        axis.plot(depth, height, ":", color=colour, label=label, lw=1.6)


def _theory_lines(one: GradientProfile) -> list[tuple[Array, Array]]:
    """Depths and norms that theory gives for the first step, for each output shape.

    Empty if no theory applies to the network, or the first step was not recorded.
    """
    if one.theory is None or not one.theory.plain or one.start is None:
        return []
    layers = one.seeds[0].layers
    depth, stage = layers["depth"].to_numpy(dtype=float), layers["stage"].to_numpy()
    drawn = []
    for name in dict.fromkeys(stage):
        own = stage == name
        # Start at the last layer of that shape: the gradient arrives there first.
        if own.sum() > 1 and np.isfinite(one.start[own][-1]):
            height = one.start[own][-1] * one.theory.factor ** (depth[own][-1] - depth[own])
            drawn.append((depth[own], height))
    return drawn


def _step_map_figure(profiles: list[GradientProfile]) -> Figure:
    maps = {
        one.network: layer_bins(one).rows(
            medians_by_step([seed.norms for seed in one.seeds]).set_axis(
                list(one.seeds[0].layers["layer"])
            )
        )
        for one in profiles
    }
    names = listing(list(maps))
    low, high = panels.finite_range([matrix.where(matrix > 0) for matrix in maps.values()])
    return Figure(
        key="norm-map",
        title=Said(
            "Gradient norms by layer and step range from {low} to {high}",
            low=number(low),
            high=number(high),
        ),
        caption=(
            "Median L2 norm of the gradient with respect to each layer's output, by layer (the "
            "input at the bottom) and step; one logarithmic colour scale. Grey cells: exactly "
            "zero, or not finite." + caption_end(map(layer_bins, profiles))
        ),
        alt=f"Heat maps of gradient norm by layer and step for {names}.",
        draw=theme.themed(partial(draw_layers_by_step, maps, "gradient norm (L2)")),
        # The report opens with much the same picture.
        length=Length.FULL,
    )


def _map_figure(profiles: list[GradientProfile]) -> Figure:
    names = listing([one.network for one in profiles])
    spans = [
        Said(
            "{low} to {high} in {network}",
            low=number(low),
            high=number(high),
            network=one.network,
        )
        for one in profiles
        for low, high in [panels.finite_range([epoch_norms(one)])]
    ]
    return Figure(
        key="norm-map",
        title=Said("Gradient norms by layer and epoch range from {spans}", spans=listing(spans)),
        caption=(
            "Median L2 norm of the gradient with respect to each layer's output, by depth (the "
            "input at the bottom) and epoch; one logarithmic colour scale for all panels. Grey "
            "cells: exactly zero, or not finite." + caption_end(map(layer_bins, profiles))
        ),
        alt=f"Heat maps of gradient norm by depth and epoch for {names}.",
        draw=partial(_draw_map, profiles),
    )


@theme.themed
def _draw_map(profiles: list[GradientProfile]) -> Drawing:
    maps = {one.network: layer_bins(one).rows(epoch_norms(one)) for one in profiles}
    labels = ("depth (layers from the input)", "gradient norm (L2)")
    return panels.heat_maps(maps, 3.2, *labels, colour_map="viridis")
