"""Whether the inputs of one run tell anything, and whether they have a usual scale."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.reach import parameter_extremes
from analyses.health.readings import (
    MIN_WINDOW,
    OVERLOOKED,
    Reading,
    held_since,
    is_beyond,
    verdict_of,
    window_medians,
    window_size,
)
from analyses.reading.model_tensors import first_axis, inputs_of
from analyses.result import Verdict
from analyses.wording.numbers import number
from analyses.wording.phrases import listing, plural
from gradflow.runs.reading.run import Run

# Of the rms of inputs that reaches the first layer's output. Initial weights keep it within some
# tens of percent; far less means that the model scales its inputs itself, or looks them up.
_REACHES = 0.05
_FIRST_LAYERS = ("linear", "convolution")


@dataclass(frozen=True)
class InputBounds(Bounds):
    """Bounds of the condition of this module.

    Fields:
        unscaled: for the root mean square of the inputs. Standardized inputs have 1, images in
            [0, 1] some tenths, small counts some units; images from 0 to 255 about 100.
    """

    unscaled: float = 30.0


def inputs_answer(run: Run, unscaled: float, max_steps: int) -> Answer:
    """Whether the inputs tell nothing, or are far too large; not asked if they were not recorded.

    Ill are inputs that are not finite; inputs of which every tensor is constant, or has equal
    samples, in a batch; and inputs whose rms lies above `unscaled`, if the first layer is linear or
    a convolution and its outputs are as large. A mask of ones beside other inputs is no illness.
    """
    rows = inputs_of(run)
    if not len(rows):
        return _from_gradients(run)
    for found in (_not_finite(rows), _telling_nothing(run, rows), _always_the_same(run, rows)):
        if found is not None:
            return found
    return _scale(run, rows, unscaled, max_steps)


def _not_finite(rows: pd.DataFrame) -> Reading | None:
    counts = rows["nonfinite"].groupby(rows["step"]).sum()
    if not counts.any():
        return None
    ill = counts.to_numpy() > 0
    steps = counts.index.to_numpy()
    first = int(steps[ill.argmax()])
    place = listing(list(dict.fromkeys(rows.loc[rows["nonfinite"] > 0, "place"])))
    have = "have" if " and " in place else "has"
    when = f"in step {first}"
    if ill.sum() > 1:
        when = f"in {ill.sum()} of {plural(len(ill), 'recorded step')}, first {when}"
    one = _reading(
        Verdict.SUPPORTED,
        float(ill.sum()),
        f"{place} {have} values that are NaN or infinite, {when}",
        "A value is missing in the data, or what scales them divides by 0.",
        since=first,
        held_early=bool(ill[0]),
        steps=len(steps),
    )
    return replace(one, tells_when=True)


def _telling_nothing(run: Run, rows: pd.DataFrame) -> Reading | None:
    """The reading if no input varies over the samples of a batch in the last steps."""
    kinds = {
        "0": rows["zero_fraction"] == 1,
        "constant": (rows["min"] == rows["max"]) & (rows["read"] > 1),
        "repeated": rows["repeated"] == 1,
    }
    several = first_axis(rows) > 1
    idle = (kinds["0"] | kinds["constant"] | kinds["repeated"]) & (several | (rows["read"] > 1))
    # A number that goes with the whole batch, such as a temperature, tells nothing of a sample.
    asked = rows["read"] > 1
    if not asked.any():
        return None
    by_step = idle[asked].groupby(rows.loc[asked, "step"]).all()
    ill, steps = by_step.to_numpy(), by_step.index.to_numpy()
    size = window_size(len(ill), run_steps(ill))
    if ill[-size:].mean() < 0.5:
        return None
    since = held_since(ill, steps, OVERLOOKED)
    last = rows[asked & (rows["step"] >= (steps[-size] if since is None else since))]
    names = listing(list(dict.fromkeys(last["place"])))
    enough = len(ill) >= MIN_WINDOW
    if (last["zero_fraction"] == 1).all():
        said, cause = f"{names} is all 0", "the inputs are all 0"
    elif ((last["min"] == last["max"]) & (last["zero_fraction"] < 1)).all():
        said, cause = f"{names} is constant", "the inputs are constant"
    else:
        said = f"all samples of a batch are alike in {names}"
        cause = "the inputs are the same for all samples of a batch"
    return _reading(
        Verdict.SUPPORTED if enough else Verdict.INCONCLUSIVE,
        float(ill[-size:].mean()),
        f"{said} in {int(ill[-size:].sum())} of the last {plural(size, 'recorded step')}",
        f"Nothing can be learnt from them: {cause}. Look at what the data loader returns.",
        since=since,
        held_early=bool(ill[:size].mean() >= 0.5),
        steps=len(ill),
        note="" if enough else f"{MIN_WINDOW} recorded steps are needed.",
    )


def _always_the_same(run: Run, rows: pd.DataFrame) -> Reading | None:
    """The open reading if every recorded step had the same inputs, but for full-batch training.

    Statistics of a tensor that are equal to the last digit are those of the same values: another
    batch has another sum, but for zeros and ones, of which each sample may have as many. All of
    the data in one batch is no illness; a step an epoch shows it.
    """
    switches = rows["whole"].astype(bool) & (rows["min"] >= 0) & (rows["max"] <= 1)
    told = rows[(rows["read"] > 1) & ~switches]
    steps = told["step"].nunique()
    if steps < MIN_WINDOW or _has_one_step_an_epoch(run):
        return None
    kinds = told.groupby("place")[["mean", "std", "min", "max", "zero_fraction"]].nunique()
    if kinds.empty or (kinds > 1).any(axis=None):
        return None
    names = listing(list(kinds.index))
    return replace(
        _reading(
            Verdict.INCONCLUSIVE,
            float(steps),
            "",
            "",
            since=None,
            held_early=False,
            steps=steps,
            note=f"{names} had the same mean, deviation and range in all "
            f"{plural(steps, 'recorded step')}: if there are more data than one batch, the loader "
            "returns this one again and again.",
        ),
        next_step="Compare the batches of two steps. If this batch is all of the data, nothing is "
        "wrong: call end_epoch after each pass over the data, and that is recorded.",
    )


def _has_one_step_an_epoch(run: Run) -> bool:
    counts = run.steps.groupby("epoch")["step"].nunique()
    return len(counts) > 1 and bool((counts == 1).all())


def run_steps(ill: np.ndarray) -> int:
    """The longest window: that of all conditions, or all steps if they are fewer."""
    return min(len(ill), Bounds().last_steps)


def _scale(run: Run, rows: pd.DataFrame, unscaled: float, max_steps: int) -> Reading:
    """Whether inputs of a linear layer or a convolution are far larger than 1."""
    rms = np.sqrt(rows["mean"] ** 2 + rows["std"] ** 2)
    worst = rms.groupby(rows["place"], sort=False).median().idxmax()
    chosen = rows[rows["place"] == worst]
    values = rms[chosen.index]
    one = window_medians(values.to_numpy(), max_steps)
    verdict = verdict_of(one, unscaled, above=True)
    first = _first_layer(run)
    reaches = first is not None and _share_that_reaches(run, first, values, chosen) > _REACHES
    if verdict is not Verdict.CONTRADICTED and not reaches:
        verdict = Verdict.CONTRADICTED
    ill = verdict is Verdict.SUPPORTED
    low, high = float(chosen["min"].min()), float(chosen["max"].max())
    whole = "whole numbers " if chosen["whole"].all() else ""
    spread = f"from {number(low)} to {number(high)}"
    steps = chosen["step"].to_numpy()
    return Reading(
        "inputs",
        verdict,
        "root mean square of the inputs",
        "",
        one.value,
        one.low,
        one.high,
        one.early_value,
        reaches and is_beyond(one.early_value, unscaled, above=True),
        unscaled,
        f"above {number(unscaled)} where they enter a linear layer or a convolution",
        one.method,
        said=f"{worst} holds {whole}{spread}, mean {number(float(chosen['mean'].median()))}, "
        f"standard deviation {number(float(chosen['std'].median()))}"
        if ill
        else "",
        cause=f"The scale of the inputs: layer {first} takes them as they are, and its outputs are "
        "as large. Standardize them, or divide by their range."
        if ill
        else "",
        since=held_since(values.to_numpy() > unscaled, steps, OVERLOOKED) if ill else None,
        otherwise="If a normalization follows the first layer, it takes the scale out again, and "
        "they do less harm."
        if ill and (run.layers["role"] == "normalization").any()
        else "",
    )


def _first_layer(run: Run) -> str | None:
    """The first layer of the model, if it is linear or a convolution; else None."""
    layers = run.layers[~run.layers["role"].isin(["block", "other", "activation"])]
    if not len(layers) or layers["role"].iloc[0] not in _FIRST_LAYERS:
        return None
    return str(layers["layer"].iloc[0])


def _share_that_reaches(run: Run, layer: str, rms: pd.Series, rows: pd.DataFrame) -> float:
    """The rms of the first layer's outputs over that of the inputs, in the first steps."""
    found = run.activations.loc[run.activations["layer"] == layer, ["step", "rms"]]
    of_output = found.groupby("step")["rms"].first()
    share = of_output.reindex(rows["step"]).to_numpy() / rms.where(rms > 0).to_numpy()
    first = share[np.isfinite(share)][:MIN_WINDOW]
    return float(np.median(first)) if len(first) else 0.0


def _reading(
    verdict: Verdict,
    value: float,
    said: str,
    cause: str,
    *,
    since: int | None,
    held_early: bool,
    steps: int,
    note: str = "",
) -> Reading:
    return Reading(
        "inputs",
        verdict,
        "recorded steps with such inputs",
        "",
        value,
        None,
        None,
        None,
        held_early,
        0.0,
        "inputs of which no tensor varies over a batch, or that are not finite",
        f"count over {plural(steps, 'recorded step')}; no interval: nothing was sampled",
        note,
        said,
        cause,
        since=since,
    )


def _from_gradients(run: Run) -> Answer:
    """Whether the first layer's inputs are all 0; not asked if that cannot be seen.

    For runs in which inputs were not recorded. The gradient of a weight is a sum of products of the
    layer's inputs and the gradients of its outputs. If it is exactly 0 in every recorded step while
    these are not, the inputs are 0.
    """
    layers = run.layers[run.layers["role"].isin(_FIRST_LAYERS)]
    if not len(layers):
        return NotAsked("inputs", "no input of the model was recorded")
    first = str(layers["layer"].iloc[0])
    found = parameter_extremes(run)
    of_output = run.gradients.loc[run.gradients["layer"] == first, "norm"]
    weight = f"{first}.weight"
    if weight not in found.index or not (of_output > 0).any():
        reason = "the gradient of the first layer's output was not recorded, or is always 0"
        return NotAsked("inputs", reason)
    value, steps = float(found.loc[weight, "gradient"]), int(found.loc[weight, "steps"])
    if math.isnan(value):
        return NotAsked("inputs", "the first layer's weight never had a gradient")
    zero = value == 0
    return Reading(
        "inputs",
        (Verdict.SUPPORTED if steps >= MIN_WINDOW else Verdict.INCONCLUSIVE)
        if zero
        else Verdict.CONTRADICTED,
        "largest gradient norm of the first layer's weight",
        first,
        value,
        None,
        None,
        None,
        zero,
        0.0,
        "exactly 0 in every recorded step, while the gradient of the layer's output is not",
        f"largest of {plural(steps, 'recorded step')}; no interval: nothing was sampled",
        cause=f"The inputs are all 0: the weight of {first} has a gradient of exactly 0, though "
        "its output has one. Look at what the data loader returns."
        if zero
        else "",
        since=int(run.parameters["step"].min()) if zero else None,
    )


def _read(run: Run, bounds: InputBounds) -> list[Answer]:
    return [inputs_answer(run, bounds.unscaled, bounds.last_steps)]


INPUTS = Condition(
    key="inputs",
    hypothesis="The inputs[ of {}] are not fit to learn from.",
    holds="the inputs are not fit to learn from",
    fails="the inputs vary, are finite and of a usual scale",
    unknown="it cannot be told whether the inputs are fit to learn from",
    contradicted_by="Inputs that vary over a batch, are finite, and whose root mean square lies "
    "below the bound.",
    next_step="Look at a batch as the data loader returns it: its range, and what scales it.",
    to_ask="Call the whole model, not parts of it: the tracer looks at what it is given.",
    source=(
        "LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, section 4.3 (normalizing the "
        "inputs); Schoop, Huang & Hartmann 2021, UMLAUT (inputs not normalized)"
    ),
    needed=False,
    leads_to=(
        "overshooting",
        "dead",
        "saturated",
        "collapsed",
        "exploding",
        "vanishing",
        "stalled",
        "not-learning",
        "non-finite",
    ),
    read=_read,
    bound="unscaled",
    only_if_present=True,
)
