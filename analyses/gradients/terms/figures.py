"""Draws by layer and time each term's share of the gradient, and the cosines of pairs."""

from typing import Any

import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from analyses.gradients.terms.measure import NetworkTerms
from analyses.plotting import panels, theme
from analyses.reading.depth_bins import depth_bins

PER_ROW = 3  # panels side by side
MAX_PANELS = 6  # of shares, and of cosines; the table has all
SHARES, COSINES = "cividis", "RdBu"


@theme.themed
def draw_shares(one: NetworkTerms) -> Drawing:
    """Draw one panel a term: its share of the gradient at each layer's output, by step."""
    matrices = {name: one.shares[name] for name in one.names[:MAX_PANELS]}
    figure, bar = _draw(matrices, Normalize(0, 1), SHARES, "share of the gradient")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


@theme.themed
def draw_cosines(one: NetworkTerms) -> Drawing:
    """Draw one panel a pair: the cosine of its gradients by each layer's parameters, by step."""
    matrices = {" and ".join(pair): one.cosines[pair] for pair in list(one.cosines)[:MAX_PANELS]}
    figure, _ = _draw(matrices, Normalize(-1, 1), COSINES, "cosine")
    return figure


def _draw(
    matrices: dict[str, pd.DataFrame], scale: Normalize, colour_map: str, label: str
) -> tuple[Drawing, Any]:
    across = min(len(matrices), PER_ROW)
    down = -(-len(matrices) // across)
    rows = max(len(matrix) for matrix in matrices.values())
    height = min(1.3 + 0.16 * rows, 3.2)
    figure, axes = panels.subplots(down, across, height * down)
    for axis in axes.flat[len(matrices) :]:
        axis.set_visible(False)
    for place, (axis, (title, matrix)) in enumerate(zip(axes.flat, matrices.items(), strict=False)):
        bins = depth_bins(list(matrix.index))
        drawn = panels.heat_map(axis, bins.rows(matrix), scale, colour_map, title)
        axis.set_xlabel("step")
        if place % across:
            axis.set_yticklabels([])
        else:
            axis.set_ylabel("layer")
    bar = panels.colour_bar(figure, drawn, list(axes.flat[: len(matrices)]), label)
    return figure, bar
