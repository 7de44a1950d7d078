"""The first picture of a run recorded in its owner's loop: loss and gradients by layer and step.

The layers have their owner's names, and a line marks each step from which something was wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.health import read_health
from analyses.plotting import panels, theme
from analyses.plotting.step_maps import draw_layers_by_step, medians_by_step
from analyses.reading.depth_bins import DepthBins, depth_bins, first_note
from analyses.reading.layer_gradients import pivot_by_step
from analyses.registry import NotApplicableError
from analyses.result import Figure, Length, Verdict
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from analyses.wording.translatable import Joined, Numeral, Said, message
from gradflow.runs.reading.run import Run

# Roles whose parameters are those of other layers.
_CONTAINERS = ("block",)


@dataclass(frozen=True)
class OwnRun:
    """What the picture shows of one run.

    Fields:
        name: the network's.
        gradients: root mean square of the gradient with respect to the outputs of the layers with
            weights: rows layers by name, the input first, columns the first step of each bin.
        bins: the bins that the rows are; each layer has its own if there are few.
        loss: the loss by step; empty if it was not logged.
        since: the conditions that were found, by the step from which each held.
    """

    name: str
    gradients: pd.DataFrame
    bins: DepthBins
    loss: pd.Series
    since: dict[int, list[str]]


def own_run(run: Run) -> OwnRun:
    """Reduce `run` to what the picture shows.

    Raises `NotApplicableError` if it has no gradients of layers with weights.
    """
    layers = run.layers
    weighted = layers[(layers["parameters"] > 0) & ~layers["role"].isin(_CONTAINERS)]
    names = weighted["layer"].drop_duplicates()
    table = pivot_by_step(run.gradients, "rms", names).dropna(axis="columns", how="all")
    if table.empty:
        raise NotApplicableError(f"{run.name} has no gradients of layers with weights")
    bins = depth_bins([str(name) for name in table.columns])
    since: dict[int, list[str]] = {}
    for one in read_health(run):
        if one.verdict is Verdict.SUPPORTED and one.since is not None:
            since.setdefault(one.since, []).append(one.condition)
    return OwnRun(
        run.network,
        bins.rows(medians_by_step([table])),
        bins,
        _loss(run),
        dict(sorted(since.items())),
    )


def _loss(run: Run) -> pd.Series:
    if "loss" not in run.steps:
        return pd.Series(dtype=float)
    return run.steps.set_index("step")["loss"].astype(float).dropna()


def own_figure(shown: Sequence[OwnRun]) -> Figure:
    """Loss above gradients by layer and step, one run below the other."""
    found = [
        Said(
            "{conditions} from step {step} on in {network}"
            if len(shown) > 1
            else "{conditions} from step {step} on",
            conditions=listing(names),
            step=Numeral(f"{step}"),
            network=one.name,
        )
        for one in shown
        for step, names in one.since.items()
    ]
    title = _range(shown)
    if found:
        title = Said("What was found: {conditions}", conditions=Joined(found, "; "))
    marks = message("A line marks the step from which something was wrong.") if found else ""
    body = message(
        "Above: the loss by step. Below: root mean square of the gradient with respect to the "
        "output of each layer with weights, by its name (the input at the bottom) and step; one "
        "logarithmic colour scale, grey where it is zero or not finite."
        if all(len(one.loss) for one in shown)
        else "Root mean square of the gradient with respect to the output of each layer with "
        "weights, by its name (the input at the bottom) and step; one logarithmic colour scale, "
        "grey where it is zero or not finite."
    )
    note = first_note(one.bins for one in shown)
    return Figure(
        key="overview",
        title=title,
        caption=Joined((body, marks, note)),
        alt=Said("Heat map of gradients by layer and step. {title}.", title=title),
        draw=partial(_draw, list(shown)),
        length=Length.SUMMARY,
    )


def _range(shown: Sequence[OwnRun]) -> str:
    low, high = panels.finite_range([one.gradients.where(one.gradients > 0) for one in shown])
    return Said(
        "The gradients of the layers range from {low} to {high}",
        low=number(low),
        high=number(high),
    )


@theme.themed
def _draw(shown: Sequence[OwnRun]) -> Drawing:
    def draw_loss(axis: Axes, place: int) -> None:
        one = shown[place]
        axis.plot(one.loss.index, one.loss.to_numpy(), color="black", lw=0.9)
        panels.log_axis(axis, list(one.loss))
        axis.set_ylabel("loss")

    return draw_layers_by_step(
        {str(place): one.gradients for place, one in enumerate(shown)},
        "root mean square of the gradient",
        titles=[one.name for one in shown] if len(shown) > 1 else [""],
        above=draw_loss if all(len(one.loss) for one in shown) else None,
        marks=[_marks(one) for one in shown],
    )


def _marks(one: OwnRun) -> dict[int, str]:
    return {step: ", ".join(names) for step, names in one.since.items()}
