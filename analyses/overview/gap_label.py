"""Names the loss to stale statistics inside the panel, where no curve runs."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analyses.overview.measure import NetworkOverview
from analyses.plotting import theme

NAMED_GAP = 0.05  # of accuracy: a larger loss, if beyond noise, is named in the panel
# Of the panel, what the words need; measured in the narrowest one, that of three beside each other.
_WIDTH, _HEIGHT = 0.66, 0.26
_MARGIN = 0.04
_SAMPLES = 60  # of each curve


def named_gap(one: NetworkOverview) -> tuple[float, float, float] | None:
    """Epoch, measured accuracy and that with fresh statistics, at the largest loss beyond noise.

    They are means of seeds. None if no loss is large enough.
    """
    curves = one.curves.dropna(subset=["accuracy", "fresh"])  # the same seeds in both means
    means = curves.groupby("epoch")[["accuracy", "fresh"]].mean().astype(float)
    sure = curves.loc[curves["lost"].astype(bool), "epoch"].unique()
    means = means[means.index.isin(sure)]
    gap = means["fresh"] - means["accuracy"]
    if gap.empty or gap.max() < NAMED_GAP:
        return None
    epoch: Any = gap.idxmax()
    return float(epoch), float(means.loc[epoch, "accuracy"]), float(means.loc[epoch, "fresh"])


def name_gaps(axes: Sequence[Axes], shown: Sequence[NetworkOverview]) -> None:
    """Write what the largest gap of each network is into a corner of its panel without curves.

    The panels have the same vertical axis, and get room below their curves if a corner lacks it.
    """
    named = [
        (axis, found)
        for axis, one in zip(axes, shown, strict=True)
        if (found := named_gap(one)) is not None
    ]
    if any(_points_within(axis, *_freest_corner(axis)) for axis, _ in named):
        low, high = axes[0].get_ylim()
        ticks = [tick for tick in axes[0].get_yticks() if max(low, 0) <= tick <= min(high, 1)]
        for axis in axes:
            axis.set_yticks(ticks)
            axis.set_ylim(high - (high - low) / (1 - _HEIGHT), high)
    for axis, found in named:
        _name_gap(axis, *found)


def _name_gap(axis: Axes, epoch: float, accuracy: float, fresh: float) -> None:
    right, upper = _freest_corner(axis)
    # The difference of the accuracies as they are written elsewhere, with one decimal.
    lost = round(100 * fresh, 1) - round(100 * accuracy, 1)
    axis.annotate(
        f"{lost:.1f} points lost to\nstale batch-norm statistics",
        (epoch, accuracy + 0.25 * (fresh - accuracy)),
        xytext=(1 - _MARGIN if right else _MARGIN, 1 - _MARGIN if upper else _MARGIN),
        textcoords="axes fraction",
        ha="right" if right else "left",
        va="top" if upper else "bottom",
        fontsize=theme.SMALL_TEXT_SIZE,
        arrowprops={"arrowstyle": "-", "lw": 0.7, "color": "black"},
        bbox={"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85},
        zorder=6,
    )


def _freest_corner(axis: Axes) -> tuple[bool, bool]:
    """Whether the corner with the fewest points of curves is on the right, and whether above."""
    corners = [(right, upper) for upper, right in product((False, True), repeat=2)]
    return min(corners, key=lambda corner: _points_within(axis, *corner))


def _points_within(axis: Axes, right: bool, upper: bool) -> int:
    """How many points of curves lie in a corner, where the words would stand."""
    points = _points(axis)
    along = points[:, 0] > 1 - _WIDTH if right else points[:, 0] < _WIDTH
    height = points[:, 1] > 1 - _HEIGHT if upper else points[:, 1] < _HEIGHT
    return int((along & height).sum())


def _points(axis: Axes) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Points on all curves of the panel, as fractions of its width and height: [points, 2]."""
    parts = [np.empty((0, 2))]
    for line in axis.lines:
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        if len(x):
            places = np.linspace(0, len(x) - 1, _SAMPLES)
            order = np.arange(len(x))
            curve = np.column_stack([np.interp(places, order, x), np.interp(places, order, y)])
            parts.append(axis.transLimits.transform(curve))
    return np.concatenate(parts)
