"""The figures of deleted blocks: the cost of each block, and accuracy by number of blocks."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.skips.lesions.measure import Lesions, accuracy_by_number
from analyses.wording.numbers import percent
from analyses.wording.phrases import listing
from analyses.wording.translatable import Numeral, Said

MARK_DISTANCE = 0.16  # between the marks of two networks, in blocks


def lesion_figures(
    networks: list[str], seeds: dict[str, list[Lesions]], costs: dict[str, pd.DataFrame]
) -> tuple[Figure, ...]:
    """The figures of `seeds` and `costs`; `networks` gives the colors."""
    figures = [_cost_figure(networks, costs)]
    if any((one.deleted > 1).any() for found in seeds.values() for one in found):
        figures.append(_number_figure(networks, seeds))
    return tuple(figures)


def _cost_figure(networks: list[str], costs: dict[str, pd.DataFrame]) -> Figure:
    said = [
        Said(
            "{count} points in {network}",
            count=Numeral(f"{100 * cost['cost'].mean():.1f}"),
            network=name,
        )
        for name, cost in costs.items()
    ]
    title = Said("Deleting one block costs on average {costs}", costs=listing(said))
    return Figure(
        key="cost-by-block",
        title=title,
        caption=(
            "Accuracy lost, in percentage points of the validation images, by deleting each block "
            "of the trained network, with 95 % intervals. Filled: different from the intact "
            "network beyond chance in every seed (McNemar, adjusted over blocks)."
        ),
        alt=f"Accuracy lost by deleting each block. {title}.",
        draw=partial(_draw_costs, networks, costs),
    )


@theme.themed
def _draw_costs(networks: list[str], costs: dict[str, pd.DataFrame]) -> Drawing:
    styles = theme.styles(networks)
    middle = (len(costs) - 1) / 2
    labels = ("accuracy lost (points)", "deleted block")
    with panels.panel(2.9, *labels, columns=2, whole=False) as (figure, axis):
        for index, (network, cost) in enumerate(costs.items()):
            places = np.arange(1, len(cost) + 1) + (index - middle) * 2 * MARK_DISTANCE
            style = {"ls": "", "ms": 4.5, **styles[network]}
            ends = cost[["low", "high"]].to_numpy(dtype=float).T
            axis.vlines(places, *ends, color=style["color"], lw=1)
            real = cost["real"].to_numpy(dtype=bool)
            values = cost["cost"].to_numpy(dtype=float)
            axis.plot(places[real], values[real], label=f"{network}, beyond chance", **style)
            style |= {"mfc": "white", "label": f"{network}, not told from chance"}
            axis.plot(places[~real], values[~real], **style)
        panels.level_line(axis, 0, style="-")
        longest = max(costs.values(), key=len)
        names = longest["block"].astype(str).tolist()
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(1, len(names) + 1), names, **turned)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    return figure


def _number_figure(networks: list[str], seeds: dict[str, list[Lesions]]) -> Figure:
    said = []
    for name, found in seeds.items():
        means = accuracy_by_number(found).groupby("deleted")["accuracy"].mean()
        most = int(means.index.max())
        one = f"{percent(means[1])} with one block deleted"
        said.append(f"{one} and {percent(means[most])} with {most} in {name}")
    title = f"Mean accuracy is {'; '.join(said)}"
    return Figure(
        key="accuracy-by-number",
        title=title,
        caption=(
            "Validation accuracy against the number of blocks deleted at once: each set of blocks "
            "of each seed (small marks) and the mean (line). Dotted: accuracy of guessing."
        ),
        alt=f"Accuracy against the number of deleted blocks. {title}.",
        draw=partial(_draw_numbers, networks, seeds),
        length=Length.FULL,
    )


@theme.themed
def _draw_numbers(networks: list[str], seeds: dict[str, list[Lesions]]) -> Drawing:
    styles = theme.styles(networks)
    with panels.panel(2.6, "validation accuracy", "blocks deleted") as (figure, axis):
        for index, (network, found) in enumerate(seeds.items()):
            table = accuracy_by_number(found)
            places = table["deleted"] + (index - (len(seeds) - 1) / 2) * MARK_DISTANCE
            style = styles[network]
            axis.plot(places, table["accuracy"], ls="", ms=2.5, alpha=0.5, **style)
            means = table.groupby("deleted", as_index=False)["accuracy"].mean()
            panels.curve(axis, means, "deleted", "accuracy", label=f"{network}, mean", **style)
        chance = next(iter(seeds.values()))[0].chance
        panels.level_line(axis, chance, "chance", style=":")
        axis.set_ylim(bottom=0)
        panels.percent_axis(axis)
    return figure
