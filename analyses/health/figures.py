"""The figure of the health check: a grid of conditions by network with verdict and number."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme
from analyses.result import Figure, Length, Verdict
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said

# Fill and word of a cell: the word tells the verdicts apart without colour.
_LOOKS = {
    Verdict.SUPPORTED: ("#D55E00", "found"),
    Verdict.CONTRADICTED: ("#cfe8dd", "not found"),
    Verdict.INCONCLUSIVE: ("#e6e6e6", "can't tell"),
}


def health_figure(table: pd.DataFrame, conditions: list[str]) -> Figure:
    """Conditions by network; `table` has columns network, condition, verdict, value, layer."""
    found = table[table["verdict"] == Verdict.SUPPORTED]
    said = [
        Said(
            "{condition} in {network}",
            condition=str(one.condition),
            network=str(one.network),
        )
        for one in found.itertuples()
    ]
    asked = [name for name in conditions if name in set(table["condition"])]
    title = Said("None of the conditions was found")
    if said:
        title = Said("Found: {conditions}", conditions=listing(said))
    return Figure(
        key="conditions",
        title=title,
        caption=(
            "Each condition by network: found (dark, bold), not found (pale) or left open (grey), "
            "with the number that decides, at the layer where it is worst, and the layer's name. "
            "Blank: not asked, for a reason that the table of these gives."
        ),
        alt=f"Grid of conditions by network. {title}.",
        draw=partial(_draw, table, asked),
        length=Length.STANDARD if said else Length.FULL,
    )


@theme.themed
def _draw(table: pd.DataFrame, asked: list[str]) -> Drawing:
    networks = list(dict.fromkeys(table["network"]))
    figure, axes = panels.subplots(1, 1, 0.6 + 0.3 * len(asked))
    axis = axes[0, 0]
    for one in table.itertuples():
        _cell(axis, networks.index(one.network), asked.index(one.condition), one)
    axis.set_xlim(-0.5, len(networks) - 0.5)
    axis.set_ylim(len(asked) - 0.5, -0.5)
    axis.set_xticks(range(len(networks)), networks)
    axis.set_yticks(range(len(asked)), asked)
    axis.set_xlabel("network")
    axis.set_ylabel("condition")
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


def _cell(axis: Axes, column: int, row: int, one: Any) -> None:
    colour, word = _LOOKS[one.verdict]
    axis.bar(column, 0.88, 0.96, row - 0.44, color=colour)
    value = "" if pd.isna(one.value) else f": {number(one.value)}"
    layer = f", layer {one.layer}" if one.layer and len(one.layer) <= 24 else ""
    found = one.verdict == Verdict.SUPPORTED  # compare by value: pandas stores the plain text
    axis.text(
        column,
        row,
        f"{word}{value}{layer}",
        ha="center",
        va="center",
        fontsize=theme.SMALL_TEXT_SIZE,
        color="white" if found else "black",
        fontweight="bold" if found else "normal",
    )
