"""The conditions of the health check: their bounds, their texts, and a reading of each."""

from dataclasses import dataclass, replace

from analyses.health.gradients import flow_readings, shattering_reading
from analyses.health.loss import not_learning_reading
from analyses.health.reach import inputs_reading, not_updated_reading, unreached_readings
from analyses.health.readings import LAST_STEPS, Reading
from analyses.health.units import dead_reading, nonfinite_reading, saturation_reading
from analyses.health.updates import clipped_reading, noise_reading, stalled_reading
from analyses.result import Verdict
from analyses.wording.phrases import listing
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class Thresholds:
    """Bounds of the conditions.

    Fields:
        vanishing, exploding: for the factor of the gradient norm over the whole depth.
        shattered: for the gradient's autocorrelation at the smallest recorded distance.
        dead: for the share of channels of one activation layer that are always zero.
        saturated: for the mean derivative of a bounded activation over its largest derivative.
        clipped: for the factor that clipping multiplies the gradient with.
        stalled: for the update-to-weight ratio: a thousandth of the rule of thumb for health.
        flat: for the loss of the last steps over that of the first.
        noisy: for the gradient noise scale over the batch size.
        last_steps: the largest number of recorded steps in a median.
    """

    vanishing: float = 1e-2
    exploding: float = 1e2
    shattered: float = 0.3
    dead: float = 0.5
    saturated: float = 0.1
    clipped: float = 1e-3
    stalled: float = 1e-6
    flat: float = 0.98
    noisy: float = 100.0
    last_steps: int = LAST_STEPS


@dataclass(frozen=True)
class Condition:
    """The texts of a condition.

    Fields:
        hypothesis: that a network has the condition; the name in brackets, as `named` of
            `analyses.wording.phrases` expects.
        holds, fails, unknown: clauses that follow "In <network>".
        contradicted_by: the result that would contradict the hypothesis.
        next_step: what to try if the condition holds.
        source: the publication that the measure comes from.
    """

    hypothesis: str
    holds: str
    fails: str
    unknown: str
    contradicted_by: str
    next_step: str
    source: str


CONDITIONS = {
    "non-finite": Condition(
        "Some recorded values[ of {}] are not finite.",
        "some recorded values are not finite",
        "all recorded values are finite",
        "it cannot be told whether values are not finite",
        "No such value in any recorded step.",
        "Look at the layer named here: a division, a logarithm, a square root at zero, or a "
        "learning rate that let the weights run away.",
        "IEEE 754 (nan and infinity)",
    ),
    "inputs": Condition(
        "The inputs[ of {}] are all 0.",
        "the inputs are all 0",
        "the inputs are not all 0",
        "it cannot be told whether the inputs are all 0",
        "A gradient of the first layer's weight other than 0.",
        "Look at a batch as the data loader returns it: its range, and what scales it.",
        "the chain rule: the gradient of a weight is a product with the layer's inputs",
    ),
    "unused": Condition(
        "Some layers with trained parameters[ of {}] never run.",
        "some layers with trained parameters never run",
        "every layer with trained parameters runs",
        "it cannot be told whether some layers never run",
        "A gradient of every trained parameter, or an output of its layer.",
        "Call these layers in forward, or set requires_grad=False and leave them out.",
        "PyTorch documentation, DistributedDataParallel (unused parameters)",
    ),
    "disconnected": Condition(
        "No gradient reaches some trained parameters[ of {}].",
        "no gradient reaches some trained parameters",
        "a gradient reaches every trained parameter whose layer runs",
        "it cannot be told whether a gradient reaches every trained parameter",
        "A gradient of every trained parameter in some recorded step.",
        "Look for detach(), torch.no_grad(), .data, .item() or a numpy array between the last of "
        "these layers and the loss; set requires_grad=False if they are not to be trained.",
        "PyTorch documentation, Autograd mechanics (tensors without history)",
    ),
    "not-updated": Condition(
        "Some trained parameters[ of {}] have gradients but are never updated.",
        "some trained parameters have gradients but are never updated",
        "every trained parameter with a gradient is updated",
        "it cannot be told whether every parameter with a gradient is updated",
        "An update of every parameter that has a gradient.",
        "Give these parameters to an optimizer, with a learning rate above 0.",
        "PyTorch documentation, torch.optim (parameter groups)",
    ),
    "vanishing": Condition(
        "In the last recorded steps the gradients[ of {}] vanish toward the input.",
        "the gradients vanish toward the input in the last recorded steps",
        "the gradients do not vanish in the last recorded steps",
        "it cannot be told whether the gradients vanish in the last recorded steps",
        "A factor over the depth whose interval lies above the bound.",
        "Try He or Glorot initialization, normalization or skips, and check again.",
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural "
        "networks; Hanin 2018, How to start training",
    ),
    "exploding": Condition(
        "In the last recorded steps the gradients[ of {}] explode toward the input.",
        "the gradients explode toward the input in the last recorded steps",
        "the gradients do not explode in the last recorded steps",
        "it cannot be told whether the gradients explode in the last recorded steps",
        "A factor over the depth whose interval lies below the bound.",
        "Try smaller initial weights, gradient clipping, a warm-up or skips, and check again.",
        "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks; "
        "Yang et al. 2019, A mean field theory of batch normalization, theorem 8",
    ),
    "shattered": Condition(
        "The gradients[ of {}] are shattered: like white noise along a line of inputs.",
        "the gradients are shattered",
        "the gradients are not shattered",
        "it cannot be told whether the gradients are shattered",
        "An autocorrelation whose interval lies above the bound.",
        "Try skips, or fewer layers, and check again.",
        "Balduzzi et al. 2017, The shattered gradients problem",
    ),
    "dead": Condition(
        "Most channels of some layer[ of {}] are dead: zero on every input.",
        "some layer has mostly dead channels",
        "no layer has mostly dead channels",
        "it cannot be told whether some layer has mostly dead channels",
        "No activation layer with that many channels that are always zero.",
        "Try a smaller learning rate, biases at zero, normalization before the activation, or "
        "leaky ReLUs.",
        "Lu et al. 2020, Dying ReLU and initialization",
    ),
    "saturated": Condition(
        "The units of some layer[ of {}] are saturated.",
        "some layer has saturated units",
        "no layer has saturated units",
        "it cannot be told whether some layer has saturated units",
        "A mean derivative whose interval lies above the bound in every such layer.",
        "Try smaller initial weights, normalization before the activation, or inputs of unit "
        "variance.",
        "Glorot & Bengio 2010 (saturation)",
    ),
    "clipped": Condition(
        "The gradients[ of {}] are clipped to next to nothing in every step.",
        "the gradients are clipped to next to nothing",
        "the gradients are not clipped to next to nothing",
        "it cannot be told whether the gradients are clipped to next to nothing",
        "A factor whose interval lies above the bound.",
        "Raise the bound of the clipping to about the usual norm of the gradient.",
        "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks, "
        "section 3.2",
    ),
    "stalled": Condition(
        "The training[ of {}] is stalled.",
        "training is stalled",
        "training is not stalled",
        "it cannot be told whether training is stalled",
        "An update-to-weight ratio whose interval lies above the bound in every layer.",
        "Raise the learning rate, and see whether the layer's gradient is too small to move it.",
        "CS231n, Stanford, Neural networks 3 (ratio of updates to weights)",
    ),
    "not-learning": Condition(
        "The loss[ of {}] does not fall.",
        "the loss does not fall",
        "the loss falls",
        "it cannot be told whether the loss falls",
        "A loss of the last steps whose interval lies below the bound.",
        "Train on a single batch: a sound network learns it by heart. If this one does not, check "
        "loss, labels and learning rate.",
        "Zhang et al. 2021, AUTOTRAINER (slow convergence, oscillating loss)",
    ),
    "noisy": Condition(
        "The gradients[ of {}] are mostly noise at this batch size.",
        "the gradients are mostly noise at this batch size",
        "the gradients are not mostly noise at this batch size",
        "it cannot be told whether the gradients are mostly noise at this batch size",
        "A noise scale over the batch size whose interval lies below the bound.",
        "Try a larger batch or a smaller learning rate.",
        "McCandlish et al. 2018, An empirical model of large-batch training",
    ),
}


def read_health(run: Run, bounds: Thresholds | None = None) -> list[Reading]:
    """The reading of each condition that `run` has data for, in the order of `CONDITIONS`."""
    bounds = bounds or Thresholds()
    max_steps = bounds.last_steps
    flow = flow_readings(run, bounds.vanishing, bounds.exploding, max_steps)
    others = (
        nonfinite_reading(run),
        inputs_reading(run),
        *unreached_readings(run),
        not_updated_reading(run),
        clipped_reading(run, bounds.clipped, max_steps),
        shattering_reading(run, bounds.shattered),
        dead_reading(run, bounds.dead, max_steps),
        saturation_reading(run, bounds.saturated, max_steps),
        stalled_reading(run, bounds.stalled, max_steps, bounds.clipped),
        not_learning_reading(run, bounds.flat, max_steps),
        noise_reading(run, bounds.noisy),
    )
    found = {one.condition: one for one in (*flow, *others) if one is not None}
    return _with_first_causes([found[name] for name in CONDITIONS if name in found])


def _with_first_causes(readings: list[Reading]) -> list[Reading]:
    """The readings; a loss that does not fall is told as the effect of what else was found."""
    ill = [one.condition for one in readings if one.verdict is Verdict.SUPPORTED]
    before = [name for name in ill if name not in ("not-learning", "noisy", "unused")]
    cause = f"Look at this first: {listing(before)}."
    return [
        replace(one, cause=cause) if before and one.condition == "not-learning" else one
        for one in readings
    ]
