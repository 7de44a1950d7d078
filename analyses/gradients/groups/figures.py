"""Draws gradient norms before and after clipping, and the named groups over steps."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.gradients.groups.measure import NetworkGroups
from analyses.plotting import panels, theme

PER_ROW = 3  # networks side by side; further ones come below
MAX_GROUPS = 6  # lines in a panel: as many as there are colours


@theme.themed
def draw_clipping(networks: list[str], shown: Sequence[NetworkGroups]) -> Drawing:
    """Draw one panel a network: the norm of the whole gradient, left and received, by step."""
    across = min(len(shown), PER_ROW)
    down = -(-len(shown) // across)
    figure, axes = panels.subplots(down, across, 2.6 * down, sharey=True)
    palette = theme.colours(networks)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for place, (axis, one) in enumerate(zip(axes.flat, shown, strict=False)):
        curve = one.curve
        axis.plot(
            curve["step"], curve["backward_gradient_norm"], color=theme.GREY, lw=1.1, ls="--",
            label="as backward left it",
        )  # fmt: skip
        axis.plot(
            curve["step"], curve["gradient_norm"], color=palette[one.network],
            label=f"as {one.network} received it" if len(shown) > 1 else "as it was received",
        )  # fmt: skip
        axis.fill_between(
            curve["step"].to_numpy(dtype=float),
            curve["gradient_norm"].to_numpy(dtype=float),
            curve["backward_gradient_norm"].to_numpy(dtype=float),
            color=theme.GREY, alpha=theme.BAND_OPACITY, linewidth=0,
        )  # fmt: skip
        axis.set_title(one.network, parse_math=False)
        panels.epoch_axis(axis, "step")
        if place % across == 0:
            axis.set_ylabel("norm of the whole gradient")
    panels.log_axis(axes.flat[0], _values([one.curve for one in shown]))
    panels.legend(figure, list(axes.flat[: len(shown)]))
    return figure


@theme.themed
def draw_groups(one: NetworkGroups) -> Drawing:
    """Draw the gradient of each group, and its update relative to its weights, by step."""
    figure, axes = panels.subplots(1, 2, 2.9)
    names = list(one.groups["group"])[:MAX_GROUPS]
    labels = (("gradient_norm", "gradient, as received"), ("update_to_weight", "update / weight"))
    for axis, (column, label) in zip(axes.flat, labels, strict=True):
        for name, style in theme.styles(names).items():
            _draw_line(axis, one, name, column, style)
        shown = one.by_group[one.by_group["group"].isin(names)]
        panels.log_axis(axis, shown[column].tolist())
        panels.epoch_axis(axis, "step")
        axis.set_title(label)
    axes[0, 0].set_ylabel("norm")
    axes[0, 1].set_ylabel("ratio of norms")
    panels.legend(figure, list(axes.flat), columns=min(len(names), 6))
    return figure


def _draw_line(
    axis: Axes, one: NetworkGroups, name: str, column: str, style: dict[str, Any]
) -> None:
    rows = one.by_group[one.by_group["group"] == name].dropna(subset=[column])
    if len(rows):
        axis.plot(
            rows["step"], rows[column], label=name, **style, markersize=3.5,
            markevery=max(1, len(rows) // 8),
        )  # fmt: skip


def _values(curves: Sequence[object]) -> list[float]:
    return [
        value
        for curve in curves
        for column in ("backward_gradient_norm", "gradient_norm")
        for value in curve[column].tolist()  # type: ignore[index]
    ]
