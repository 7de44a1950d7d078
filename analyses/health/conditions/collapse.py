"""Whether the model's outputs are alike for all inputs of a batch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import (
    MIN_WINDOW,
    Reading,
    is_beyond,
    since_beyond,
    verdict_of,
    window_medians,
)
from analyses.reading.layer_gradients import pivot_by_step
from analyses.reading.model_tensors import inputs_of, outputs_of
from analyses.wording.numbers import number
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class CollapseBounds(Bounds):
    """Bounds of the condition of this module.

    Fields:
        collapsed: for the standard deviation of an output over the batch, over its rms. Outputs in
            all directions have 1, outputs that do not depend on the input 0, up to rounding. That
            of a regression whose targets lie far from 0 may be small as well, but hardly this.
    """

    collapsed: float = 1e-3


def collapsed_answer(run: Run, collapsed: float, max_steps: int) -> Answer:
    """Whether outputs are alike for all samples of a batch; not asked if none was recorded."""
    rows = outputs_of(run)
    rows = rows[rows["batch_variance"].notna()]
    if not len(rows):
        reason = "no output of the model with one row a sample was recorded"
        return NotAsked("collapsed", reason, applies=not len(run.table("model_tensors")))
    if _inputs_are_alike(run):
        return NotAsked("collapsed", "the inputs are alike within a batch", applies=False)
    spread = spread_over_batch(rows)
    # A model may return a constant beside what it is asked for: all outputs must be alike.
    by_step = spread.groupby(rows["step"]).max().sort_index()
    one = window_medians(by_step.to_numpy(), max_steps)
    verdict = verdict_of(one, collapsed, above=False)
    was_early = is_beyond(one.early_value, collapsed, above=False)
    layer = _first_alike(run, collapsed, max_steps)
    return Reading(
        "collapsed",
        verdict,
        "standard deviation of the outputs within a batch, relative to their root mean square,",
        layer if is_beyond(one.value, collapsed, above=False) else "",
        one.value,
        one.low,
        one.high,
        one.early_value,
        was_early,
        collapsed,
        f"below {number(collapsed)}",
        one.method,
        cause="The outputs are alike for all samples of a batch, though the inputs are not"
        + (f": so they are from layer {layer} on." if layer else "."),
        since=since_beyond(by_step, collapsed, above=False),
    )


def spread_over_batch(rows: pd.DataFrame) -> pd.Series:
    """Standard deviation over the batch over the rms of each tensor; 0 if all of it is 0."""
    rms = np.sqrt(rows["mean"] ** 2 + rows["std"] ** 2)
    spread = np.sqrt(rows["batch_variance"]) / rms.where(rms > 0, 1.0)
    return spread.astype(float)


def _inputs_are_alike(run: Run) -> bool:
    rows = inputs_of(run)
    rows = rows[rows["repeated"].notna()]
    return bool(len(rows) and (rows["repeated"] == 1).groupby(rows["step"]).all().mean() > 0.5)


def _first_alike(run: Run, collapsed: float, max_steps: int) -> str:
    """The first layer from which on outputs are alike in every layer; empty if it cannot be told.

    Over batch and places, by the recorded moments of channels.
    """
    table = run.activations
    total = table["channel_variance"] + table["channel_squared_mean"]
    share = np.sqrt(table["channel_variance"] / total.where(total > 0))
    layers = run.layers["layer"]
    frame = pivot_by_step(table.assign(spread=share.fillna(0.0)), "spread", layers)
    if len(frame) < MIN_WINDOW:
        return ""
    first = ""
    for name in frame:
        value = window_medians(frame[name].dropna().to_numpy(), max_steps).value
        if value is None or value >= collapsed:
            first = ""
        elif not first:
            first = str(name)
    return first


def _read(run: Run, bounds: CollapseBounds) -> list[Answer]:
    return [collapsed_answer(run, bounds.collapsed, bounds.last_steps)]


COLLAPSED = Condition(
    key="collapsed",
    hypothesis="The outputs[ of {}] are alike for all inputs.",
    holds="the outputs are alike for all inputs",
    fails="the outputs differ from input to input",
    unknown="it cannot be told whether the outputs are alike for all inputs",
    contradicted_by="A standard deviation over the batch whose interval lies above the bound.",
    next_step="Look at the first layer whose outputs are alike: dead units, weights of 0, a mean "
    "over the wrong axis, or a loss that a constant output meets best.",
    source="Chen & He 2021, Exploring simple Siamese representation learning, figure 2",
    needed=False,
    leads_to=("not-learning",),
    read=_read,
    bound="collapsed",
)
