"""Figures of the explanation of the jumps: shares of the movement, and associations."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analyses.accuracy.explanation.measure import JUMPS, LEARNING, NOISE, REAL, STALE, Decomposition
from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.wording.numbers import percent
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said

# Greys and hatches, so that the parts differ without colour too.
_STYLES = {
    NOISE: {"facecolor": "#d9d9d9", "hatch": ""},
    STALE: {"facecolor": "#E69F00", "hatch": "///"},
    LEARNING: {"facecolor": "#56B4E9", "hatch": "..."},
    JUMPS: {"facecolor": "#0072B2", "hatch": ""},
    REAL: {"facecolor": "#0072B2", "hatch": ""},
}
_FARTHEST = 2.0  # intervals are cut here, with an arrow: longer ones say only "unknown"


def share_figure(found: dict[str, Decomposition]) -> Figure:
    """The shares of each network in `found`; every one must have shares."""
    largest = {name: max(one.shares, key=lambda share: share.value) for name, one in found.items()}
    said = listing(
        [
            Said(
                "{part} of {network} ({share})",
                part=Said(one.name),
                network=name,
                share=percent(one.value),
            )
            for name, one in largest.items()
        ]
    )
    return Figure(
        key="shares",
        title=Said("Largest parts of the movement of validation accuracy: {parts}", parts=said),
        caption=(
            "Left: the parts of the squared epoch-to-epoch change of validation accuracy, summed "
            "over epochs and seeds. The parts of a bar add up to 100 %; parts below 0 are drawn to "
            "the left of 0. Right: each share with its 95 % interval; an arrow marks an end beyond "
            "the panel. A share below 0 or above 100 % is within the noise of its estimate, or "
            "means that re-estimation adds movement."
        ),
        alt=f"Stacked bars of the shares of the movement. Largest: {said}.",
        draw=partial(_draw_shares, found),
    )


def link_figure(networks: list[str], correlations: pd.DataFrame) -> Figure:
    """The correlations with the real change of each network, as `links.correlations` gives them."""
    largest = correlations.loc[correlations["Spearman rho"].abs().idxmax()]
    return Figure(
        key="associations",
        title=(
            f"The real change of accuracy correlates most with {largest['quantity']} in the "
            f"{largest['epoch']} ({largest['network']}, rho = {largest['Spearman rho']:+.2f})"
        ),
        caption=(
            "Spearman correlation of the change of validation accuracy with gradient quantities "
            "of the same epoch (filled) and the epoch before (open), the steady course of training "
            "removed from both, averaged over seeds. Associations, not causes; the test accounts "
            "for their number."
        ),
        alt="Rank correlations of accuracy changes with gradient quantities.",
        draw=partial(_draw_links, networks, correlations),
        length=Length.FULL,
    )


@theme.themed
def _draw_shares(found: dict[str, Decomposition]) -> Drawing:
    rows = 1 + 0.95 * len(found)
    figure, axes = panels.subplots(1, 2, rows, sharey=True, gridspec_kw={"width_ratios": (3, 2)})
    bars, points = axes[0]
    for height, one in enumerate(found.values()):
        _stack(bars, height, one)
        _intervals(points, height, one)
    for axis in (bars, points):
        axis.grid(False)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axis.axvline(0, color="black", linewidth=0.6)
    bars.set_yticks(range(len(found)), list(found))
    bars.set_ylim(len(found) - 0.5, -0.5)
    bars.set_xlabel("share of the squared movement")
    points.axvline(0.5, color=theme.GREY, linewidth=0.9, linestyle="--")
    low, high = points.get_xlim()
    points.set_xlim(max(min(low, -0.1), -_FARTHEST), min(max(high, 1.1), _FARTHEST))
    points.set_xlabel("share with its 95 % interval")
    panels.legend(figure, [bars])
    return figure


def _stack(axis: Axes, height: int, one: Decomposition) -> None:
    ends = {True: 0.0, False: 0.0}  # where the next part above 0 starts, and the next below 0
    for share in one.shares:
        left, above = ends[share.value >= 0], share.value >= 0
        bar = axis.barh(height, share.value, 0.6, left=left, label=share.name)
        for patch in bar:
            patch.set(**_STYLES[share.name], edgecolor="black", linewidth=0.6)
        ends[above] += share.value
        if abs(share.value) >= 0.12:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
            text = f"{100 * share.value:.0f} %"
            middle = left + share.value / 2
            size = theme.SMALL_TEXT_SIZE
            axis.text(middle, height, text, bbox=box, ha="center", va="center", fontsize=size)


def _intervals(axis: Axes, height: int, one: Decomposition) -> None:
    places = height + np.linspace(-0.27, 0.27, len(one.shares))
    for place, share in zip(places, one.shares, strict=True):
        color = _STYLES[share.name]["facecolor"]
        if share.low is not None and share.high is not None:
            ends = np.clip([share.low, share.high], -_FARTHEST, _FARTHEST)
            axis.plot(ends, [place, place], color="black", lw=2.4, solid_capstyle="butt")
            axis.plot(ends, [place, place], color=color, lw=1.4, solid_capstyle="butt")
            for end, whole, mark in zip(ends, (share.low, share.high), "<>", strict=True):
                if end != whole:
                    axis.plot(end, place, mark, color="black", ms=4, clip_on=False)
        if abs(share.value) <= _FARTHEST:
            axis.plot(share.value, place, "o", mfc=color, mec="black", ms=4.5)


@theme.themed
def _draw_links(networks: list[str], correlations: pd.DataFrame) -> Drawing:
    quantities = list(dict.fromkeys(correlations["quantity"]))
    shown = list(dict.fromkeys(correlations["network"]))
    height, label = 1.3 + 0.34 * len(quantities), "Spearman's rho with the real change of accuracy"
    styles = theme.styles(networks)
    with panels.panel(height, "", label, whole=False) as (figure, axis):
        for index, network in enumerate(shown):
            own = correlations[correlations["network"] == network]
            shift = 0.22 * (index - (len(shown) - 1) / 2)
            for epoch, part in own.groupby("epoch", sort=False):
                heights = [quantities.index(name) + shift for name in part["quantity"]]
                style: dict[str, Any] = {"ls": "", **styles[network]}
                if epoch != "same epoch":
                    style["mfc"] = "white"
                axis.plot(part["Spearman rho"], heights, label=f"{network}, {epoch}", **style)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xlim(-1, 1)
        axis.set_yticks(range(len(quantities)), quantities)
        axis.set_ylim(len(quantities) - 0.5, -0.5)
    return figure
