"""Draws the values of each group in a row: their range, quartiles and outliers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.gradients.outliers.measure import GroupedValues
from analyses.plotting import panels, theme
from analyses.reading.layer_groups import pattern_of
from analyses.result import Figure
from analyses.wording.phrases import plural, slug

MOST_GROUPS = 40  # rows of a figure or table
LONGEST_NAME = 34
_FAR = "#D55E00"


def group_figure(network: str, of: str, found: Sequence[GroupedValues]) -> Figure:
    """The figure of the layers, or of the parameters, of one network; a panel per quantity."""
    outliers = sum(len(one.outliers) for one in found)
    members = len(found[0].values)
    groups = len(found[0].groups)
    left_out = "" if groups <= MOST_GROUPS else (
        f" {MOST_GROUPS} of the {plural(groups, 'group')} are drawn, those with outliers first."
    )  # fmt: skip
    return Figure(
        key=f"{of}s-{slug(network)}",
        title=(
            f"{plural(members, of)} of {network} in {plural(groups, 'group')}: "
            f"{plural(outliers, 'value')} far from those of the group"
        ),
        caption=(
            f"Each row is a group of {of}s with names alike up to a number, in order of execution "
            f"(the input at the top), at epoch {found[0].epoch}. Thin line: from the lowest value "
            "to the highest; thick: between the quartiles; white: median. Triangles: outliers, of "
            "which the farthest in each row is named." + left_out
        ),
        alt=f"Ranges of {', '.join(one.quantity.name for one in found)} by group in {network}.",
        draw=partial(_draw, found),
    )


def shown_groups(one: GroupedValues) -> list[str]:
    """The groups in order; of too many, those with outliers first, then the largest."""
    if len(one.groups) <= MOST_GROUPS:
        return list(one.groups["group"])
    ranked = one.groups.sort_values(["outliers", "members"], ascending=False, kind="stable")
    return list(one.groups.loc[sorted(ranked.index[:MOST_GROUPS]), "group"])


@theme.themed
def _draw(found: Sequence[GroupedValues]) -> Drawing:
    names = shown_groups(found[0])
    height = 0.9 + 0.19 * len(names)
    figure, axes = panels.subplots(1, len(found), height, sharey=True)
    for axis, one in zip(axes[0], found, strict=True):
        _draw_panel(axis, one, names)
        axis.set_xlabel(one.quantity.name)
    axes[0, 0].set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _draw_panel(axis: Axes, one: GroupedValues, names: list[str]) -> None:
    by_group = {name: part for name, part in one.values.groupby("group") if name in set(names)}
    drawn: list[float] = []
    for row, name in enumerate(names):
        part = by_group.get(name)
        values = part["value"].to_numpy() if part is not None else np.array([])
        values = values[values > 0]
        if part is None or not len(values):
            continue
        drawn += [float(values.min()), float(values.max())]
        low, middle, high = np.percentile(values, [25, 50, 75])
        axis.plot([values.min(), values.max()], [row, row], color=theme.GREY, lw=0.8)
        axis.plot([low, high], [row, row], color="#0072B2", lw=4, solid_capstyle="butt")
        style: dict[str, Any] = {"mfc": "white", "mec": "#0072B2", "mew": 0.8, "ms": 3.5}
        axis.plot([middle], [row], "o", **style)
        _draw_outliers(axis, part[part["outlier"]], row)
    if drawn:
        axis.set_xscale("log")
        panels.plain_log_ticks(axis.xaxis, max(drawn) / min(drawn))
    axis.margins(x=0.12)


def _draw_outliers(axis: Axes, far: Any, row: int) -> None:
    if not len(far):
        return
    axis.plot(far["value"], [row] * len(far), "^", color=_FAR, ms=4, ls="", clip_on=False)
    farthest = far.loc[np.log(far["times"]).abs().idxmax()]
    high = farthest["times"] > 1
    axis.annotate(
        _label(str(farthest["name"])),
        (farthest["value"], row),
        xytext=(-5 if high else 5, 3.5),
        textcoords="offset points",
        ha="right" if high else "left",
        va="center",
        fontsize=5.5,
        color=_FAR,
        parse_math=False,
    )


def _label(name: str) -> str:
    """The numbers that tell a member from its group, such as `20`, or `3.7` of two numbers."""
    pairs = zip(name.split("."), pattern_of(name).split("."), strict=True)
    return ".".join(own for own, part in pairs if own != part)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
