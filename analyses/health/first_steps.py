"""What was so when a condition began: initial weights, inputs of a layer, or the loss itself.

What holds in the first step cannot come from updates. Of a layer's units it tells more: how large
the bias of the layer before is beside the spread of its outputs, and how large its inputs were.
"""

from dataclasses import replace

import pandas as pd

from analyses.health.readings import Reading
from analyses.result import Verdict
from analyses.wording.numbers import number
from analyses.wording.translatable import Numeral, Said, message
from gradflow.runs.reading.run import Run

FAR = 3.0  # standard deviations from zero: hardly any output is on the other side
_ZERO = "are 0, or its inputs are."
_RANDOM = "Give the weights of that layer random values to begin with, and look at its inputs."
_FLOW = ("vanishing", "exploding")


def with_onset(run: Run, one: Reading) -> Reading:
    """`one` with its cause, if it was found without one and the first steps tell it."""
    if one.verdict is not Verdict.SUPPORTED or one.cause:
        return one
    if one.condition == "non-finite":
        return replace(one, cause=_of_nonfinite(run))
    if one.condition in _FLOW:
        return replace(one, cause=_of_flow(run, one))
    if one.condition in ("dead", "saturated"):
        cause = _of_units(run, one)
        return replace(one, cause=cause, next_step=_RANDOM if cause.endswith(_ZERO) else "")
    return one


def _is_from_the_start(run: Run, one: Reading) -> bool:
    return one.since is not None and len(run.steps) > 0 and one.since <= run.steps["step"].min()


def _of_nonfinite(run: Run) -> str:
    """Where the first such value came from, if only the loss can have made it."""
    first = run.description.get("first_nonfinite")
    names = list(run.layers["layer"])
    if not isinstance(first, dict) or not names:
        return ""
    if first.get("direction") == "backward" and first.get("layer") == names[-1]:
        return (
            "All outputs were finite, and the gradient of the last one was not: the loss makes it, "
            "by a logarithm, a division or a square root at 0, or by numbers beyond the type's."
        )
    return ""


def _of_flow(run: Run, one: Reading) -> str:
    if _is_from_the_start(run, one):
        return message(
            "It is so from the first step on, which no update could bring about: by the initial "
            "weights and the activations between them."
        )
    if one.since is None:
        return ""
    return Said(
        "It came in training, with step {step}: the initial weights are not the cause.",
        step=Numeral(f"{one.since}"),
    )


def _of_units(run: Run, one: Reading) -> str:
    """What the layer before gave these units when the condition began."""
    order = list(dict.fromkeys(run.layers["layer"]))
    place = order.index(one.layer) if one.layer in order else 0
    if place == 0 or one.since is None:
        return ""
    given = order[place - 1]
    now = _statistics(run, given, one.since)
    if now is None:
        return ""
    if not _is_from_the_start(run, one):
        why = ""
    elif one.condition == "dead":
        why = _why_dead(run, given, one.since, now)
    else:
        why = _why_saturated(_statistics(run, order[place - 2], one.since) if place > 1 else None)
    return Said(
        "Its inputs, the outputs of layer {layer}, have mean {mean} and standard deviation {std} "
        "in step {step}, before any update: {why}."
        if why
        else "Its inputs, the outputs of layer {layer}, have mean {mean} and standard deviation "
        "{std} in step {step}: updates moved them there.",
        layer=given,
        mean=number(now[0]),
        std=number(now[1]),
        step=Numeral(f"{one.since}"),
        why=message(why),
    )


def _why_dead(run: Run, layer: str, step: int, outputs: tuple[float, float]) -> str:
    if outputs == (0.0, 0.0):
        return f"the weights of layer {layer} {_ZERO[:-1]}"
    bias = _bias(run, layer, step)
    if bias is not None and bias > FAR * outputs[1]:
        return Said("its bias of about {bias} puts them there", bias=number(bias))
    return message("by the initial weights, or by its inputs")


def _why_saturated(inputs: tuple[float, float] | None) -> str:
    if inputs is None:
        return message("its weights or the inputs are too large")
    size = (inputs[0] ** 2 + inputs[1] ** 2) ** 0.5
    if size > FAR:
        return Said("its inputs, of {size} on average, are large", size=number(size))
    return Said("its weights are too large, at inputs of {size}", size=number(size))


def _statistics(run: Run, layer: str, step: int) -> tuple[float, float] | None:
    """Mean and standard deviation of a layer's outputs in a step; None if not recorded."""
    rows = run.activations[(run.activations["layer"] == layer) & (run.activations["step"] == step)]
    found = rows[["mean", "std"]].astype(float).dropna()
    return (float(found["mean"].iloc[0]), float(found["std"].iloc[0])) if len(found) else None


def _bias(run: Run, layer: str, step: int) -> float | None:
    """Root mean square of a layer's biases in a step; None without biases."""
    rows = run.parameters[
        (run.parameters["parameter"] == f"{layer}.bias") & (run.parameters["step"] == step)
    ]
    shape = run.layers.loc[run.layers["layer"] == layer, ["shape", "role"]]
    if rows.empty or shape.empty or pd.isna(rows["weight_norm"].iloc[0]):
        return None
    parts = str(shape["shape"].iloc[0]).split("x")
    channels = parts[0] if shape["role"].iloc[0] == "convolution" else parts[-1]
    return float(rows["weight_norm"].iloc[0]) / int(channels) ** 0.5 if channels.isdigit() else None
