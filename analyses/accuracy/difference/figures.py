"""Figures of the matched comparison: the difference by epoch, and power by number of seeds."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter

from analyses.accuracy.difference.measure import MEAN_ROW, DifferenceCurve
from analyses.plotting import panels, theme
from analyses.reading.pairs import NetworkPair
from analyses.result import Figure, Length
from analyses.statistics.estimates import as_percent, estimate_of
from analyses.statistics.means import Mean
from analyses.statistics.power import paired_power, sd_interval, seeds_for_power
from analyses.statistics.seeds_and_images import MeanOverSeeds
from analyses.wording.phrases import plural, slug

# The first two colours are those of the networks; their difference has another one.
DIFFERENCE_COLOUR, MEASURED_SIZE_COLOUR = list(
    theme.colours(["plain", "residual", "both", "other"]).values()
)[2:]
MAX_SEEDS_SHOWN = 200


def curve_frame(curve: DifferenceCurve) -> pd.DataFrame:
    """One row per epoch: value, low, high, band_low, band_high, as fractions; NaN if unknown."""
    rows = len(curve.epochs)
    value = curve.means.values[:rows]
    ends = np.array([curve.means.pointwise_interval(row) for row in range(rows)], dtype=float)
    half = curve.means.band_half_width(slice(0, rows))
    half = np.nan if half is None else half
    return pd.DataFrame(
        {
            "value": value,
            "low": ends[:, 0],
            "high": ends[:, 1],
            "band_low": value - half,
            "band_high": value + half,
        }
    )


def mean_difference_words(curve: DifferenceCurve) -> str:
    """The mean difference over epochs with its interval, in words."""
    low, high = curve.means.pointwise_interval(MEAN_ROW)
    mean = Mean(float(curve.means.values[MEAN_ROW]), low, high, curve.method)
    return estimate_of("", mean, "percentage points", as_percent).words


def by_epoch_figure(
    pair: NetworkPair, running: DifferenceCurve, re_estimated: DifferenceCurve | None
) -> Figure:
    """The difference at each epoch, with running and with re-estimated statistics."""
    curves = {"running batch-norm statistics": running}
    if re_estimated is not None:
        curves["re-estimated batch-norm statistics"] = re_estimated
    names = f"{pair.residual} less {pair.plain}"
    mean = mean_difference_words(running)
    title = f"{names}: mean difference in validation accuracy over epochs {mean}"
    seeds = running.means.seeds
    return Figure(
        key=slug(f"by-epoch-{pair.residual}"),
        title=title,
        caption=(
            f"Validation accuracy of {names} by epoch, in percentage points, on the same images; "
            f"{running.method}. Dark band: pointwise 95 % interval; light band: simultaneous, it "
            "holds the whole curve with 95 % confidence. Dotted: the mean over epochs."
            + (" Thin lines: seeds." if seeds > 1 else "")
        ),
        alt=f"Curve of the difference in validation accuracy by epoch. {title}.",
        draw=partial(_draw_by_epoch, curves),
        length=Length.FULL,
    )


@theme.themed
def _draw_by_epoch(curves: dict[str, DifferenceCurve]) -> Drawing:
    label = "difference in validation\naccuracy (points)"
    with panels.row(list(curves), 2.8, label, columns=3) as (figure, axes):
        for axis, of in zip(axes, curves.values(), strict=True):
            _draw_curve(axis, of)
    return figure


def _draw_curve(axis: Axes, curve: DifferenceCurve) -> None:
    frame = 100 * curve_frame(curve)
    epochs = np.array(curve.epochs, dtype=float)
    if curve.means.seeds > 1:
        for one in curve.means.by_seed[:, : len(epochs)]:
            axis.plot(epochs, 100 * one, color=theme.GREY, linewidth=0.6, alpha=0.8, label="seeds")
    bands = (("band_low", "band_high", 0.13, "simultaneous"), ("low", "high", 0.25, "pointwise"))
    for low, high, opacity, label in bands:
        if frame[low].notna().any():
            # A band over a single epoch has no width: draw it as a bar.
            x = epochs if len(epochs) > 1 else np.array([epochs[0] - 0.1, epochs[0] + 0.1])
            ends = [frame[name].to_numpy(dtype=float) for name in (low, high)]
            ends = ends if len(epochs) > 1 else [np.repeat(end, 2) for end in ends]
            style: dict[str, Any] = {"color": DIFFERENCE_COLOUR, "alpha": opacity, "linewidth": 0}
            axis.fill_between(x, ends[0], ends[1], label=f"{label} 95 %", **style)
    axis.plot(
        epochs, frame["value"], color=DIFFERENCE_COLOUR, marker="^", markersize=3.5, label="mean"
    )
    mean = 100 * float(curve.means.values[MEAN_ROW])
    axis.axhline(
        mean, color=DIFFERENCE_COLOUR, linestyle=":", linewidth=1.1, label="mean over epochs"
    )
    panels.level_line(axis, 0.0, "no difference")


def power_figure(
    pair: NetworkPair, means: MeanOverSeeds, smallest_difference: float, power: float, alpha: float
) -> Figure:
    """Power of the paired t-test by number of seeds; `means` must be over several seeds."""
    sd = 0.0 if means.seed_sd is None else float(means.seed_sd[MEAN_ROW])
    measured = abs(float(means.values[MEAN_ROW]))
    needed = seeds_for_power(smallest_difference, sd, power, alpha)
    said = "more than 1,000,000 seeds" if needed is None else plural(needed, "seed")
    verb = "settles" if needed == 1 else "settle"
    title = f"{said} {verb} a mean difference of {100 * smallest_difference:g} points"
    low, high = sd_interval(sd, means.seeds)
    sizes = {
        f"{100 * smallest_difference:g} points, smallest of interest": smallest_difference,
        f"{100 * measured:.1f} points, as measured": measured,
    }
    return Figure(
        key=slug(f"power-{pair.residual}"),
        title=title,
        caption=(
            f"Probability that a paired t-test at {alpha:g} finds a true mean difference over "
            f"epochs between {pair.residual} and {pair.plain}, by number of seeds, at the "
            f"standard deviation between the {means.seeds} seeds recorded ({100 * sd:.1f} points); "
            f"bands: at the ends of its 95 % interval ({100 * low:.1f} to {100 * high:.1f} "
            f"points). Dashed: the power wanted, {power:g}. Dotted: the seeds recorded."
        ),
        alt=f"Curves of power by number of seeds. {title}.",
        draw=partial(_draw_power, sizes, means.seeds, sd, power, alpha),
        length=Length.FULL,
    )


@theme.themed
def _draw_power(
    sizes: dict[str, float], seeds: int, sd: float, power: float, alpha: float
) -> Drawing:
    with panels.panel(2.7, "power", "seeds (pairs of runs)", whole=False) as (figure, axis):
        _draw_power_curves(axis, sizes, seeds, sd, alpha)
        panels.level_line(axis, power, f"wanted: {100 * power:g} %")
        axis.axvline(seeds, color=theme.GREY, linestyle=":", linewidth=1.1, label="seeds recorded")
        axis.set_xscale("log")
        axis.set_xticks([2, 3, 5, 10, 20, 50, 100, 200])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.minorticks_off()
        axis.set_ylim(0, 1.02)
        panels.percent_axis(axis)
    return figure


def _draw_power_curves(
    axis: Axes, sizes: dict[str, float], seeds: int, sd: float, alpha: float
) -> None:
    counts = np.unique(np.geomspace(2, MAX_SEEDS_SHOWN, 40).round().astype(int))
    low, high = sd_interval(sd, seeds)
    styles = zip(sizes.items(), (DIFFERENCE_COLOUR, MEASURED_SIZE_COLOUR), ("-", "--"), strict=True)
    for (label, size), colour, line in styles:
        curves = {
            end: [paired_power(int(count), size, end, alpha) for count in counts]
            for end in (low, sd, high)
        }
        axis.plot(counts, curves[sd], line, color=colour, label=label)
        axis.fill_between(
            counts, curves[high], curves[low], color=colour, alpha=theme.BAND_OPACITY, linewidth=0
        )
