"""The figures of the skips' share of the gradient, and of the branches' share of the variance."""

from functools import partial
from typing import Any

from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme
from analyses.reading.depth_bins import caption_end
from analyses.result import Figure, Length
from analyses.skips.carry.measure import SHARES_ADD_UP, SkipShares
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said

PRE_ACTIVATION = (
    "De & Smith's share holds for pre-activation networks at initialization; with a nonlinearity "
    "after each addition it is a landmark only. It restarts at a projection, whose normalization "
    "sets the skip's variance anew."
)

BLOCK_AXIS = "block, from the input"  # label of an axis


def carry_figures(networks: list[str], found: list[SkipShares], half: float) -> tuple[Figure, ...]:
    """The figures of `found`; `half` is the share above which a skip carries most."""
    figures = [_share_figure(networks, found, half), _map_figure(found, half)]
    if any(len(one.variance) for one in found):
        figures.append(_variance_figure(networks, found))
    return tuple(figures)


def _title(found: list[SkipShares]) -> str:
    said = [
        Said(
            "{share} of the gradient of {network}",
            share=number(one.mean.value),
            network=one.network,
        )
        for one in found
        if one.mean.value is not None
    ]
    if not said:
        return Said("No share of the skips could be computed")
    return Said("The skips carry {shares}", shares=listing(said))


def _share_figure(networks: list[str], found: list[SkipShares], half: float) -> Figure:
    return Figure(
        key="share-by-block",
        title=_title(found),
        caption=(
            "The skip's share of the gradient at each block's input, median over the steps of the "
            "first epoch (dashed) and the last (solid). Squares: projections. Dotted: "
            f"{number(half)}, above which the skip carries more than the branch. {SHARES_ADD_UP}"
            + caption_end((one.bins for one in found), with_band=True)
        ),
        alt=f"The skip's share of the gradient by block. {_title(found)}.",
        draw=partial(_draw_share, networks, found, half),
    )


@theme.themed
def _draw_share(networks: list[str], found: list[SkipShares], half: float) -> Drawing:
    palette = theme.colours(networks)
    with panels.panel(2.7, "skip's share of the gradient", BLOCK_AXIS) as (figure, axis):
        for one in found:
            epochs = list(one.by_epoch.columns)
            projected = (one.blocks["skip_type"] == "projection").to_numpy()
            for epoch in dict.fromkeys([epochs[0], epochs[-1]]):
                line = "-" if epoch == epochs[-1] else "--"
                label = f"{one.network}, epoch {epoch}"
                style: dict[str, Any] = {"color": palette[one.network], "lw": 1.2}
                column = one.by_epoch[epoch]
                if one.bins.gathered:
                    shown = one.bins.curve(column.index, column)
                    drawn = {"linestyle": line, "label": label, **style}
                    panels.curve(axis, shown, "x", "value", **drawn)
                    continue
                axis.plot(column.index, column, line, label=label, **style)
                axis.plot(column.index[~projected], column[~projected], "o", ms=3, **style)
                axis.plot(column.index[projected], column[projected], "s", ms=5, **style)
        panels.level_line(axis, half, style=":")
    return figure


def _map_figure(found: list[SkipShares], half: float) -> Figure:
    lows = [
        f"{number(low)} and {number(high)} in {one.network}"
        for one in found
        for low, high in [panels.finite_range([one.by_epoch])]
    ]
    return Figure(
        key="share-map",
        title=f"The skip's share lies between {listing(lows)}, over blocks and epochs",
        caption=(
            "The skip's share of the gradient by block (the input at the bottom) and epoch, "
            f"medians over steps: blue below {number(half)}, yellow above. Light grey: no finite "
            "value." + caption_end(one.bins for one in found)
        ),
        alt=f"Heat map of the skip's share between {listing(lows)}.",
        draw=partial(_draw_map, found, half),
        length=Length.FULL,
    )


@theme.themed
def _draw_map(found: list[SkipShares], half: float) -> Drawing:
    low, high = panels.finite_range([one.by_epoch for one in found])
    # Both arms as long as the longer one: the middle of the colours is the middle of the shares.
    arm = max(high - half, half - low, 0.05)
    norm = Normalize(half - arm, half + arm)
    maps = {one.network: one.bins.rows(one.by_epoch) for one in found}
    return panels.heat_maps(maps, 2.9, BLOCK_AXIS, "skip's share of the gradient", norm=norm)


def _variance_figure(networks: list[str], found: list[SkipShares]) -> Figure:
    said = [
        f"{number(one.variance['measured'].mean())} in {one.network} "
        f"(theory {number(one.variance['centred'].mean())})"
        for one in found
        if len(one.variance)
    ]
    return Figure(
        key="branch-variance",
        title=f"At initialization the branches add a mean share of the variance of {listing(said)}",
        caption=(
            "The branch's share of the channel variance at each addition, at the first step, with "
            "De & Smith's for pre-activation networks: 1/(l + 2) of the mean square (dotted) and "
            f"its counterpart for centred variance (dashed). {PRE_ACTIVATION}"
        ),
        alt=f"The branch's share of the variance by block at the first step: {listing(said)}.",
        draw=partial(_draw_variance, networks, found),
        length=Length.FULL,
    )


@theme.themed
def _draw_variance(networks: list[str], found: list[SkipShares]) -> Drawing:
    styles = theme.styles(networks)
    longest = max(found, key=lambda one: len(one.variance)).variance
    with panels.panel(2.6, "branch's share of the variance", BLOCK_AXIS) as (figure, axis):
        for one in found:
            style = {"label": one.network, **styles[one.network]}
            panels.curve(axis, one.variance, "block", "measured", **style)
        for name, line, label in (
            ("centred", "--", "theory, centred variance"),
            ("uncentred", ":", "theory, 1/(l + 2)"),
        ):
            axis.plot(longest["block"], longest[name], line, color=theme.GREY, lw=1.1, label=label)
        axis.set_ylim(bottom=0)
    return figure
