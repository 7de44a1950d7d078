"""The figures of signal propagation: by depth, dead channels by epoch, and a map of both."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from analyses.gradients.signals.measure import NetworkSignal
from analyses.plotting import panels, theme
from analyses.plotting.step_maps import draw_layers_by_step
from analyses.reading.depth_bins import caption_end
from analyses.result import Figure, Length
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said


def signal_figures(networks: list[str], signals: list[NetworkSignal]) -> tuple[Figure, ...]:
    """The figures of `signals`, each if it has data to draw."""
    return tuple(
        figure(networks, signals)
        for figure, shown in (
            (_profile_figure, any(len(one.profile) for one in signals)),
            (_dead_figure, any(len(one.dead) for one in signals)),
            (_map_figure, any(one.std.size for one in signals)),
        )
        if shown
    )


def _profile_figure(networks: list[str], signals: list[NetworkSignal]) -> Figure:
    grown = []
    for one in signals:
        last = one.profile[one.profile["epoch"] == one.profile["epoch"].max()].dropna()
        if len(last):
            ends = last.sort_values("depth")["channel_variance"]
            grown.append(f"{one.network} from {number(ends.iloc[0])} to {number(ends.iloc[-1])}")
    roles = listing(list(dict.fromkeys(f"{one.role} outputs" for one in signals)))
    return Figure(
        key="signal-by-depth",
        title=f"Channel variance from the first to the last layer: {listing(grown)}"
        if grown
        else "No finite activation was recorded",
        caption=(
            f"Average channel variance (left) and channel squared mean (right) of the {roles} by "
            "depth; median over the steps of the first epoch (dashed) and the last (solid)."
            + caption_end((one.bins for one in signals), with_band=True)
        ),
        alt=f"Channel variance and squared mean by depth for {listing(networks)}.",
        draw=partial(_draw_profile, networks, signals),
        length=Length.FULL,
    )


@theme.themed
def _draw_profile(networks: list[str], signals: list[NetworkSignal]) -> Drawing:
    figure, axes = panels.subplots(1, 2, 2.8)
    palette = theme.colours(networks)
    for axis, name in zip(axes[0], ("channel_variance", "channel_squared_mean"), strict=True):
        for one in signals:
            epochs = list(one.profile["epoch"].drop_duplicates().sort_values())
            for epoch in dict.fromkeys([*epochs[:1], *epochs[-1:]]):
                part = one.profile[one.profile["epoch"] == epoch].set_index("depth")
                values = part[name].where(part[name] > 0).reindex(one.std.index)
                shown = one.bins.curve(values.index, values)
                line = "-" if epoch == epochs[-1] else "--"
                label = f"{one.network}, epoch {epoch:.0f}"
                style = {"linestyle": line, "color": palette[one.network], "label": label}
                panels.curve(axis, shown, "x", "value", marker=".", lw=1.2, **style)
        panels.log_axis(axis, [v for line in axis.lines for v in np.asarray(line.get_ydata())])
        axis.set_xlabel("depth (layers from the input)")
        axis.set_ylabel(name.replace("_", " ") + " (unit of x²)")
    panels.legend(figure, list(axes[0]))
    return figure


def _dead_figure(networks: list[str], signals: list[NetworkSignal]) -> Figure:
    shares = [
        f"{percent(one.dead_last.value)} in {one.network}"
        for one in signals
        if one.dead_last is not None and one.dead_last.value is not None
    ]
    return Figure(
        key="dead-channels",
        title=f"Dead channels at the last epoch: {listing(shares)}",
        caption=(
            "Left: share of the channels of all activation layers that are zero on a whole batch, "
            "mean by epoch. Right: share of zeros after each ReLU by depth at the last epoch; "
            "dotted: 1/2, what inputs symmetric about 0 give."
        ),
        alt=f"Dead channels by epoch, and zeros by depth. {listing(shares)}.",
        draw=partial(_draw_dead, networks, signals),
        length=Length.FULL,
    )


@theme.themed
def _draw_dead(networks: list[str], signals: list[NetworkSignal]) -> Drawing:
    figure, axes = panels.subplots(1, 2, 2.6)
    styles = theme.styles(networks)
    for one in signals:
        style = styles[one.network]
        panels.curve(axes[0, 0], one.dead, "epoch", "fraction", label=one.network, **style)
        panels.curve(axes[0, 1], one.zeros, "depth", "fraction", label=one.network, lw=1, **style)
    panels.epoch_axis(axes[0, 0])
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("dead channels")
    panels.level_line(axes[0, 1], 0.5, style=":")
    axes[0, 1].set_ylabel("zeros after ReLU")
    axes[0, 1].set_xlabel("depth (layers from the input)")
    for axis in axes[0]:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels.legend(figure, list(axes[0]))
    return figure


def _step_map_figure(signals: list[NetworkSignal]) -> Figure:
    maps = {one.network: one.by_step for one in signals}
    low, high = panels.finite_range([one.where(one > 0) for one in maps.values()])
    return Figure(
        key="std-map",
        title=Said(
            "Standard deviations of the activations range from {low} to {high}",
            low=number(low),
            high=number(high),
        ),
        caption=(
            "Median standard deviation of each layer's output, by its name (the input at the "
            "bottom) and step, one logarithmic colour scale. Grey cells: zero or not finite."
        ),
        alt="Heat maps of the standard deviation of activations by layer and step.",
        draw=theme.themed(
            partial(
                draw_layers_by_step, maps, "standard deviation of the output", colour_map="cividis"
            )
        ),
    )


def _map_figure(networks: list[str], signals: list[NetworkSignal]) -> Figure:
    if all(one.by_step.size for one in signals):
        return _step_map_figure(signals)
    shown = [one for one in signals if one.std.size]
    spans = [
        Said(
            "{low} to {high} in {network}",
            low=number(low),
            high=number(high),
            network=one.network,
        )
        for one in shown
        for low, high in [panels.finite_range([one.std])]
    ]
    return Figure(
        key="std-map",
        title=Said(
            "Standard deviations of the activations range from {spans}", spans=listing(spans)
        ),
        caption=(
            f"Median standard deviation of the {shown[0].role} outputs by depth (the input at the "
            "bottom) and epoch, one logarithmic colour scale. Grey cells: zero or not finite."
            + caption_end(one.bins for one in shown)
        ),
        alt="Heat maps of the standard deviation of activations by depth and epoch.",
        draw=partial(_draw_map, shown),
    )


@theme.themed
def _draw_map(signals: list[NetworkSignal]) -> Drawing:
    maps = {one.network: one.bins.rows(one.std) for one in signals}
    labels = ("depth (layers from the input)", "standard deviation of the output")
    return panels.heat_maps(maps, 2.9, *labels)
