"""Whether the inputs of one run tell anything."""

import math

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.reach import parameter_extremes
from analyses.health.readings import MIN_WINDOW, Reading
from analyses.result import Verdict
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run


def inputs_answer(run: Run) -> Answer:
    """Whether the first layer's inputs are all 0; not asked if that cannot be seen.

    The gradient of a weight is a sum of products of the layer's inputs and the gradients of its
    outputs. If it is exactly 0 in every recorded step while these are not, the inputs are 0.
    """
    layers = run.layers[run.layers["role"].isin(["linear", "convolution"])]
    if not len(layers):
        return NotAsked("inputs", "no linear layer or convolution was recorded")
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
        cause=f"The weight of {first} has a gradient of exactly 0, though its output has one: look "
        "at what the data loader returns."
        if zero
        else "",
        since=int(run.parameters["step"].min()) if zero else None,
    )


def _read(run: Run, _: Bounds) -> list[Answer]:
    return [inputs_answer(run)]


INPUTS = Condition(
    key="inputs",
    hypothesis="The inputs[ of {}] are all 0.",
    holds="the inputs are all 0",
    fails="the inputs are not all 0",
    unknown="it cannot be told whether the inputs are all 0",
    contradicted_by="A gradient of the first layer's weight other than 0.",
    next_step="Look at a batch as the data loader returns it: its range, and what scales it.",
    source="the chain rule: the gradient of a weight is a product with the layer's inputs",
    needed=False,
    leads_to=("dead", "vanishing", "stalled", "not-learning"),
    read=_read,
    only_if_present=True,
)
