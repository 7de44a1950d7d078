"""The figures of the loss along lines through the weights, and of its sharpness by epoch."""

from collections.abc import Sequence
from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.wording.numbers import number
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Said, message

EPOCH_COLOURS = "viridis"  # from dark to light in even steps: readable without colour vision
DISTANCE_LABELS = {
    "gradient": "distance along $-g/|g|$ (units of w)",
    "random": "multiple of the filters",
}


def between_epochs_figure(slices: pd.DataFrame, shares: Sequence[str]) -> Figure | None:
    """The loss from the weights before each jump to those after it; None without slices."""
    if not len(slices):
        return None
    title = (
        Said("The training loss rises between both ends at {shares}", shares=listing(shares))
        if shares
        else message("The training loss between the weights before and after a jump")
    )
    return Figure(
        key="between-epochs",
        title=title,
        caption=(
            "Training loss of one fixed batch along the straight line from the weights at the end "
            "of the epoch before (0) to those at the end of the epoch (1), at epochs where the "
            "validation accuracy moved by more than sampling noise. A line a jump, all seeds; "
            "colour: the epoch that the jump leads into. Logarithmic loss."
        ),
        alt=f"Training loss between the weights of consecutive epochs. {title}.",
        draw=partial(_draw_between_epochs, slices),
    )


def surroundings_figure(slices: pd.DataFrame) -> Figure | None:
    """The loss along the gradient and along a random direction; None without slices."""
    if not len(slices):
        return None
    random = slices[slices["direction"] == "random"]
    basins = [_is_basin(line) for _, line in random.groupby(["network", "seed", "epoch"])]
    return Figure(
        key="surroundings",
        title=(
            f"Along a random direction the loss rises to both sides at {sum(basins)} of "
            f"{plural(len(basins), 'jump')}"
        ),
        caption=(
            "Training loss of one fixed batch, less its value at the weights themselves (position "
            "0): against the gradient, to where the loss would reach 0 in a straight line, and "
            "along one random direction whose filters have the norms of the network's own "
            "(Li et al. 2018). A line a jump, all seeds; colour: epoch. Vertical axis linear up to "
            "0.1 nats, logarithmic beyond."
        ),
        alt="Training loss along the gradient and a random direction, a line a jump.",
        draw=partial(_draw_surroundings, slices),
        length=Length.FULL,
    )


def _is_basin(line: pd.DataFrame) -> bool:
    """Whether the loss on one line is lowest at position 0."""
    here = line.loc[line["position"] == 0, "loss"]
    elsewhere = line.loc[line["position"] != 0, "loss"]
    return len(here) > 0 and len(elsewhere) > 0 and bool(elsewhere.min() > here.iloc[0])


def sharpness_figure(networks: Sequence[str], table: pd.DataFrame) -> Figure | None:
    """Gradient norm and curvature by epoch; None if they were not recorded."""
    if not len(table):
        return None
    last = table[table["epoch"] == table.groupby("network")["epoch"].transform("max")]
    means = last.groupby("network", sort=False)["curvature"].mean()
    said = [f"{number(value)} in {name}" for name, value in means.dropna().items()]
    return Figure(
        key="sharpness",
        title=(
            f"At the last epoch measured the curvature along the gradient is {listing(said)}"
            if said
            else "The curvature along the gradient is not a number"
        ),
        caption=(
            "Norm of the gradient of the training loss of one fixed batch (left), and the loss's "
            "curvature along it, <g, Hg>/<g, g> (right), by epoch; a marker a seed, a line the "
            "mean over seeds. Negative curvature, where there is any, lies below the zero line."
        ),
        alt="Gradient norm and curvature along the gradient by epoch.",
        draw=partial(_draw_sharpness, list(networks), table),
        length=Length.FULL,
    )


@theme.themed
def _draw_between_epochs(slices: pd.DataFrame) -> Drawing:
    networks = list(dict.fromkeys(slices["network"]))
    norm, palette = _epoch_colours(slices)
    labels = ("training loss (nats)", "position between both weights")
    with panels.row(networks, 2.8, *labels, whole=False) as (figure, axes):
        for axis, network in zip(axes, networks, strict=True):
            _draw_slices(axis, slices[slices["network"] == network], norm, palette)
            for end in (0, 1):
                axis.axvline(end, color=theme.GREY, linewidth=0.7, linestyle=":")
        panels.log_axis(axes[0], slices["loss"].tolist())
        _epoch_bar(figure, axes, norm, palette)
    return figure


@theme.themed
def _draw_surroundings(slices: pd.DataFrame) -> Drawing:
    networks = list(dict.fromkeys(slices["network"]))
    directions = [name for name in DISTANCE_LABELS if (slices["direction"] == name).any()]
    figure, axes = panels.subplots(len(networks), len(directions), 0.6 + 2.1 * len(networks))
    norm, palette = _epoch_colours(slices)
    keys = ["network", "seed", "epoch", "direction"]
    start = slices[slices["position"] == 0].set_index(keys)["loss"].rename("start")
    rise = slices.join(start, on=keys).assign(loss=lambda frame: frame["loss"] - frame["start"])
    for row, network in zip(axes, networks, strict=True):
        for axis, direction in zip(row, directions, strict=True):
            own = (rise["network"] == network) & (rise["direction"] == direction)
            _draw_slices(axis, rise[own], norm, palette)
            panels.level_line(axis, 0.0, style=":")
            axis.set_yscale("symlog", linthresh=0.1)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.set_title(f"{network}, {direction}")
            axis.set_xlabel(DISTANCE_LABELS[direction])
        row[0].set_ylabel("rise of loss (nats)")
    _epoch_bar(figure, list(axes.flat), norm, palette)
    return figure


def _draw_slices(axis: Axes, slices: pd.DataFrame, norm: Normalize, palette: Colormap) -> None:
    ordered = slices.sort_values("position")
    for (_, epoch), line in ordered.groupby(["seed", "epoch"]):
        style = {"color": palette(norm(epoch)), "marker": ".", "linewidth": 1}
        axis.plot(line["position"], line["loss"], **style)


def _epoch_colours(slices: pd.DataFrame) -> tuple[Normalize, Colormap]:
    first, last = slices["epoch"].min(), slices["epoch"].max()
    # Leave out the lightest fifth of the map: it is hard to see on white.
    palette = LinearSegmentedColormap.from_list(
        "epochs", mpl.colormaps[EPOCH_COLOURS](np.linspace(0, 0.8, 64))
    )
    return Normalize(first, max(last, first + 1)), palette


def _epoch_bar(figure: Drawing, axes: Sequence[Axes], norm: Normalize, palette: Colormap) -> None:
    bar = panels.colour_bar(figure, ScalarMappable(norm, palette), axes, "epoch", pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))


@theme.themed
def _draw_sharpness(networks: list[str], table: pd.DataFrame) -> Drawing:
    figure, axes = panels.subplots(1, 2, 2.6)
    styles = theme.styles(networks)
    for axis, column, label in (
        (axes[0, 0], "gradient_norm", "gradient norm (nats / unit of w)"),
        (axes[0, 1], "curvature", "curvature (nats / unit of w$^2$)"),
    ):
        for network, rows in table.groupby("network", sort=False):
            style = styles[network]
            means = rows.groupby("epoch", as_index=False)[column].mean()
            axis.plot(means["epoch"], means[column], label=network, **style)
            axis.scatter(rows["epoch"], rows[column], s=8, alpha=0.6, **style)
        values = table[column].dropna()
        if (values > 0).all():
            panels.log_axis(axis, values.tolist())
        else:
            panels.level_line(axis, 0.0)
            axis.set_yscale("symlog", linthresh=max(float(values.abs().median()), 1e-12))
        axis.set_ylabel(label)
        panels.epoch_axis(axis)
    panels.legend(figure, list(axes[0]))
    return figure
