"""The figure of the accuracy curve with the changes beyond sampling noise."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Said

CurvesByNetwork = dict[str, tuple[pd.DataFrame, pd.DataFrame]]


def jump_figure(networks: list[str], found: CurvesByNetwork) -> Figure:
    """`found` holds the frames curves and changes of each network, see `NetworkChanges`."""
    said = [
        Said(
            "{rises} and {falls} of {network}",
            rises=plural(int((real["change"] > 0).sum()), "rise"),
            falls=plural(int((real["change"] < 0).sum()), "fall"),
            network=name,
        )
        for name, (_, changes) in found.items()
        for real in [changes[changes["real"]]]
    ]
    return Figure(
        key="real-jumps",
        title=Said("Beyond sampling noise are {changes}", changes=listing(said)),
        caption=(
            "Validation accuracy by epoch, with Wilson 95 % intervals if there is one seed. A "
            "triangle marks the epoch into which accuracy rose (up) or fell (down) by more than "
            "chance: McNemar's exact test on the same images, adjusted after Benjamini & "
            "Hochberg. One line per seed."
        ),
        alt=f"Validation accuracy by epoch with real changes marked. {listing(said)}.",
        draw=partial(_draw_curves, networks, found),
        length=Length.FULL,
    )


@theme.themed
def _draw_curves(networks: list[str], found: CurvesByNetwork) -> Drawing:
    palette = theme.colours(networks)
    with panels.row(list(found), 2.8, "validation accuracy") as (figure, axes):
        for axis, (network, (curves, changes)) in zip(axes, found.items(), strict=True):
            _draw_network(axis, curves, changes, palette[network])
            panels.percent_axis(axis)
    return figure


def _draw_network(axis: Axes, curves: pd.DataFrame, changes: pd.DataFrame, colour: str) -> None:
    for seed, curve in curves.groupby("seed", sort=False):
        # With several seeds the bands would cover the curves.
        alone = curves["seed"].nunique() == 1
        shown = curve if alone else curve[["epoch", "accuracy"]]
        style = {"color": colour, "marker": ".", "lw": 1.5 if alone else 0.9}
        panels.curve(axis, shown, "epoch", "accuracy", **style)
        real = changes[changes["real"] & (changes["seed"] == seed)]
        merged = real.merge(curve[["epoch", "accuracy"]], on="epoch")
        for sign, mark, label in ((1, "^", "real rise"), (-1, "v", "real fall")):
            part = merged[merged["change"] * sign > 0]
            fill = "white" if sign > 0 else "black"
            marked: dict[str, Any] = {"mec": "black", "mfc": fill, "ms": 6.5, "zorder": 4}
            axis.plot(part["epoch"], part["accuracy"], mark, label=label, **marked)
