"""Draws the kinds of panel: curves and heat maps, with their axes, colour bars and legends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from analyses.plotting.theme import BAND_OPACITY, GREY, GRID, SMALL_TEXT_SIZE, WIDTH


def subplots(
    rows: int, columns: int, height: float, width: float = WIDTH, **options: Any
) -> tuple[Figure, "np.ndarray[Any, Any]"]:
    """A new figure, by default of the common width, and its axes, shape [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        # Set the size here: matplotlib makes some ticks later, when other settings may hold.
        axis.tick_params(which="both", labelsize=SMALL_TEXT_SIZE, width=0.7)
        axis.grid(True, axis="y", color=GRID, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


@contextmanager
def panel(
    height: float, y_label: str, x_label: str = "epoch", columns: int = 4, *, whole: bool = True
) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one panel. When the block ends, it gets its labels and a legend below.

    `columns` are those of the legend. If `whole`, the horizontal axis shows whole numbers.
    """
    figure, axes = subplots(1, 1, height)
    yield figure, axes[0, 0]
    _label(axes[0, 0], y_label, x_label, whole)
    legend(figure, [axes[0, 0]], columns)


@contextmanager
def row(
    titles: Sequence[str],
    height: float,
    y_label: str,
    x_label: str = "epoch",
    columns: int = 4,
    *,
    whole: bool = True,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with one panel per title, side by side, on one vertical scale.

    When the block ends, the panels get their titles, labels and a legend below, as in `panel`.
    """
    figure, axes = subplots(1, len(titles), height, sharey=True)
    yield figure, list(axes[0])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
        _label(axis, y_label if axis is axes[0, 0] else "", x_label, whole)
    legend(figure, list(axes[0]), columns)


def _label(axis: Axes, y_label: str, x_label: str, whole: bool) -> None:
    axis.set_ylabel(y_label)
    if whole:
        epoch_axis(axis, x_label)
    else:
        axis.set_xlabel(x_label)


def percent_axis(axis: Axes) -> None:
    """Show the fractions on the vertical axis as whole percentages."""
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def epoch_axis(axis: Axes, label: str = "epoch") -> None:
    """Show whole epochs on the horizontal axis; widen the axis if there is only one."""
    axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    low, high = axis.get_xlim()
    if high - low < 1:
        axis.set_xlim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    axis.set_xlabel(label)


def log_axis(axis: Axes, values: Sequence[float]) -> None:
    """Make the vertical axis logarithmic if any of `values` is positive."""
    shown = [value for value in values if np.isfinite(value) and value > 0]
    if shown:
        axis.set_yscale("log")
        plain_log_ticks(axis.yaxis, max(shown) / min(shown))


def plain_log_ticks(axis: Axis, span: float) -> None:
    """Label a logarithmic axis with plain numbers if it spans less than three decades."""
    if span >= 1000:
        return
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    if few_ticks_if_narrow(axis, span):
        return
    axis.set_minor_locator(LogLocator(subs=(2, 5) if span > 3 else range(2, 10)))
    axis.set_minor_formatter(plain if span < 100 else NullFormatter())


def few_ticks_if_narrow(axis: Axis, span: float) -> bool:
    """Give a logarithmic axis three plain labels if its ends differ by less than half.

    Within so little there is no power of ten, and what stands in its place has long labels.
    Return whether it is so.
    """
    if span >= 1.5:
        return False
    axis.set_major_locator(MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    return True


def curve(axis: Axes, frame: pd.DataFrame, x: str, y: str, **style: Any) -> None:
    """Draw a line through columns `x` and `y`, and a band between columns `low` and `high`."""
    marker = style.pop("marker", "")
    (line,) = axis.plot(frame[x], frame[y], marker=marker, markersize=3.5, **style)
    if {"low", "high"} <= set(frame.columns):
        axis.fill_between(
            frame[x].to_numpy(dtype=float),
            frame["low"].to_numpy(dtype=float),
            frame["high"].to_numpy(dtype=float),
            color=line.get_color(),
            alpha=BAND_OPACITY,
            linewidth=0,
        )


def heat_map(
    axis: Axes,
    matrix: pd.DataFrame,
    norm: Normalize,
    colour_map: str,
    title: str,
) -> Any:
    """Draw rows by epoch as coloured cells, the first row at the bottom; return the mesh.

    Cells that are not finite stay grey. The index of `matrix` labels the rows.
    """
    values = np.ma.masked_invalid(matrix.to_numpy(dtype=float))
    palette = mpl.colormaps[colour_map].with_extremes(bad="#bdbdbd")
    epochs = matrix.columns.to_numpy(dtype=float)
    # A cell ends halfway to the next one. The outer ones are as wide as their neighbours.
    between = (epochs[1:] + epochs[:-1]) / 2
    first, last = (
        (epochs[1] - epochs[0], epochs[-1] - epochs[-2]) if len(epochs) > 1 else (1.0, 1.0)
    )
    sides = np.concatenate([epochs[:1] - first / 2, between, epochs[-1:] + last / 2])
    heights = np.arange(len(matrix) + 1) - 0.5
    drawn = axis.pcolormesh(sides, heights, values, norm=norm, cmap=palette)
    # Draw edges in the cell's own colour: without them, viewers show thin gaps between cells.
    drawn.set(edgecolor="face", linewidth=0.3)
    axis.grid(False)
    axis.set_title(title)
    epoch_axis(axis)
    shown = np.unique(np.linspace(0, len(matrix) - 1, min(len(matrix), 9)).round().astype(int))
    axis.set_yticks(shown, [str(matrix.index[row]) for row in shown])
    return drawn


def heat_maps(
    matrices: Mapping[str, pd.DataFrame],
    height: float,
    y_label: str,
    colour_label: str,
    colour_map: str = "cividis",
    norm: Normalize | None = None,
) -> Figure:
    """A figure with one heat map per title, side by side, with one colour scale and its bar.

    Without `norm` the scale is logarithmic, and cells that are not positive stay grey.
    """
    if norm is None:
        matrices = {title: matrix.where(matrix > 0) for title, matrix in matrices.items()}
    scale = norm or log_colours(list(matrices.values()))
    figure, axes = subplots(1, len(matrices), height)
    for axis, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        drawn = heat_map(axis, matrix, scale, colour_map, title)
    axes[0, 0].set_ylabel(y_label)
    if norm is None:
        log_colour_bar(figure, drawn, axes[0], colour_label)
    else:
        figure.colorbar(drawn, ax=list(axes[0]), label=colour_label)
    return figure


def finite_range(matrices: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Smallest and largest finite value of several frames; (0, 1) if there is none."""
    pool = np.concatenate([matrix.to_numpy(dtype=float).ravel() for matrix in matrices])
    pool = pool[np.isfinite(pool)]
    if not len(pool):
        return 0.0, 1.0
    return float(pool.min()), float(pool.max())


def log_colours(matrices: Sequence[pd.DataFrame]) -> LogNorm:
    """One logarithmic colour scale over the positive values of several frames."""
    low, high = finite_range([matrix.where(matrix > 0) for matrix in matrices])
    return LogNorm(low, high) if 0 < low < high else LogNorm((high or 1) / 2, (high or 1) * 2)


def colour_bar(figure: Figure, drawn: Any, axes: Sequence[Axes], label: str, **options: Any) -> Any:
    """A colour bar in small print for panels that share a colour scale; returns the bar."""
    bar = figure.colorbar(drawn, ax=list(axes), **options)
    bar.set_label(label, fontsize=SMALL_TEXT_SIZE)
    bar.ax.tick_params(which="both", labelsize=SMALL_TEXT_SIZE)
    return bar


def log_colour_bar(figure: Figure, drawn: Any, axes: Sequence[Axes], label: str) -> None:
    """A colour bar for panels that share a logarithmic colour scale."""
    bar = colour_bar(figure, drawn, axes, label)
    plain_log_ticks(bar.ax.yaxis, drawn.norm.vmax / drawn.norm.vmin)


def level_line(axis: Axes, height: float, label: str | None = None, style: str = "--") -> None:
    """Draw a thin grey line across a panel, for a threshold or a theoretical value."""
    axis.axhline(height, color=GREY, linewidth=0.9, linestyle=style, label=label, zorder=1)


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 4, *, above: bool = False) -> None:
    """One legend for all panels, below or above them, each label once."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        place: Any = f"outside {'upper' if above else 'lower'} center"
        figure.legend(list(entries.values()), list(entries), loc=place, ncols=columns)
