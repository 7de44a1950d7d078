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
from analyses.result import Verdict
from analyses.wording.numbers import number
from analyses.wording.phrases import plural
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
    if verdict is not Verdict.SUPPORTED:
        attention = _attention_alike(run, collapsed, max_steps)
        if attention is not None:
            return attention
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
        + (f": so they are from layer {layer} on.{_of_weights(run, layer)}" if layer else "."),
        since=since_beyond(by_step, collapsed, above=False),
    )


def _of_weights(run: Run, layer: str) -> str:
    """That the weights of the first layer whose outputs are alike are or were 0; or ""."""
    rows = run.parameters[run.parameters["parameter"] == f"{layer}.weight"]
    norms = rows["weight_norm"].to_numpy(dtype=float)
    if not len(norms) or (norms[0] != 0 and norms[-1] != 0):
        return ""
    if norms[0] == 0:
        return " Its weights are all 0 in the first step: give them random initial values."
    return (
        " Its weights are all 0 in the last step: see what pulls them there, as weight decay does."
    )


def _attention_alike(run: Run, collapsed: float, max_steps: int) -> Reading | None:
    """The reading if an attention layer's outputs are alike for all inputs and positions, or None.

    So they are if all positions attend to one token that does not depend on the input. Skips carry
    the inputs past it, so that the model's outputs differ all the same. What one token gives that
    differs from input to input cannot be told by these moments, over batch and positions together.
    """
    attentions = run.layers.loc[run.layers["role"] == "attention", "layer"].drop_duplicates()
    spread = _spread_of_layers(run, attentions)
    found = {name: window_medians(spread[name].dropna().to_numpy(), max_steps) for name in spread}
    alike = [
        name
        for name, one in found.items()
        if verdict_of(one, collapsed, above=False) is Verdict.SUPPORTED
    ]
    if not alike:
        return None
    layer, one = str(alike[0]), found[alike[0]]
    count = f"{len(alike)} of {plural(len(found), 'attention layer')}"
    return Reading(
        "collapsed",
        Verdict.SUPPORTED,
        "standard deviation of an attention layer's outputs over batch and positions, relative to "
        "their root mean square,",
        layer,
        one.value,
        one.low,
        one.high,
        one.early_value,
        is_beyond(one.early_value, collapsed, above=False),
        collapsed,
        f"below {number(collapsed)}",
        one.method,
        cause=f"What attention gives is alike for all inputs and positions in {count}, as if all "
        "attended to one token that is the same for all inputs: it has no part in what is learnt.",
        next_step="Look at the attention weights of that layer: a mask that leaves one position, "
        "queries or keys that are too large, or values that are alike.",
        since=since_beyond(spread[layer], collapsed, above=False),
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
    frame = _spread_of_layers(run, run.layers["layer"]).fillna(0.0)
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


def _spread_of_layers(run: Run, layers: pd.Series) -> pd.DataFrame:
    """Spread of each layer's outputs over batch and places, by step; missing where all are 0."""
    table = run.activations
    total = table["channel_variance"] + table["channel_squared_mean"]
    share = np.sqrt(table["channel_variance"] / total.where(total > 0))
    return pivot_by_step(table.assign(spread=share), "spread", layers)


def _read(run: Run, bounds: CollapseBounds) -> list[Answer]:
    return [collapsed_answer(run, bounds.collapsed, bounds.last_steps)]


COLLAPSED = Condition(
    key="collapsed",
    hypothesis="The outputs[ of {}], or those of an attention layer, are alike for all inputs.",
    holds="the outputs, or those of an attention layer, are alike for all inputs",
    link="the outputs are alike for all inputs",  # a link names the layer
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
