"""SageMaker Debugger's built-in rules, as their published documentation states them.

Amazon Web Services: List of Debugger built-in rules, Amazon SageMaker Developer Guide,
https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html. The rules run in
Amazon's service, and their code is not published: each function states what that page states, with
the default thresholds given there. Where the page leaves something open, the function says how it
is read here.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Named = Mapping[str, Tensor]


def vanishing_gradient(gradients: Named, threshold: float = 1e-7) -> list[str]:
    """VanishingGradient: tensors whose mean absolute gradient is below `threshold`."""
    return [name for name, one in gradients.items() if float(one.float().abs().mean()) < threshold]


def exploding_tensor(tensors: Named, *, only_nan: bool = False) -> list[str]:
    """ExplodingTensor: tensors with a value that is infinite or not a number."""
    wrong = torch.isnan if only_nan else lambda one: ~torch.isfinite(one)
    return [name for name, one in tensors.items() if bool(wrong(one).any())]


def _mostly_inactive(active: Tensor, threshold_inactivity: float, threshold_layer: float) -> bool:
    """Whether more than a share of nodes (axes after the first) are active in few samples."""
    share = active.float().mean(0).flatten()
    inactive = share < threshold_inactivity / 100
    return float(inactive.float().mean()) > threshold_layer / 100


def dead_relu(
    outputs: Named, threshold_inactivity: float = 1.0, threshold_layer: float = 50.0
) -> list[str]:
    """DeadRelu: layers in which more than 50 % of the ReLUs are active in less than 1 %.

    A ReLU is read as one element of the output without its first axis, and its activity as the
    share of samples of the batch in which it is above 0.
    """
    return [
        name
        for name, one in outputs.items()
        if _mostly_inactive(one > 0, threshold_inactivity, threshold_layer)
    ]


def saturated_activation(
    inputs: Named,
    low: float,
    high: float,
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
) -> list[str]:
    """SaturatedActivation: layers of which more than 50 % of the nodes get inputs outside bounds.

    The bounds are (-9.4999, 9.4999) for tanh and (-23, 16.99999) for sigmoid; a node is saturated
    if less than 1 % of its inputs in a batch lie between them.
    """
    return [
        name
        for name, one in inputs.items()
        if _mostly_inactive((one > low) & (one < high), threshold_inactivity, threshold_layer)
    ]


TANH, SIGMOID = (-9.4999, 9.4999), (-23.0, 16.99999)


def weight_update_ratio(
    before: Named,
    after: Named,
    large_threshold: float = 10.0,
    small_threshold: float = 1e-8,
    epsilon: float = 1e-9,
) -> tuple[list[str], list[str]]:
    """WeightUpdateRatio: tensors whose update is too large, or too small, beside the weights.

    The page gives no norm; the mean absolute value is taken, from one step to the next.

    Returns:
        Names of those that are too large, and of those that are too small.
    """
    ratios = {
        name: float(
            (after[name].float() - one.float()).abs().mean() / (one.float().abs().mean() + epsilon)
        )
        for name, one in before.items()
    }
    large = [name for name, ratio in ratios.items() if ratio > large_threshold]
    return large, [name for name, ratio in ratios.items() if ratio < small_threshold]


def all_zero(tensors: Named, threshold: float = 100.0) -> list[str]:
    """AllZero: tensors of which at least `threshold` % of the values are 0."""
    return [
        name for name, one in tensors.items() if float((one == 0).float().mean()) * 100 >= threshold
    ]


def unchanged_tensor(
    history: Sequence[Named], num_steps: int = 3, rtol: float = 1e-5, atol: float = 1e-8
) -> list[str]:
    """UnchangedTensor: tensors that are all close (numpy's) in the last `num_steps` steps."""
    if len(history) < num_steps:
        return []
    last, *others = reversed(history[-num_steps:])
    return [
        name
        for name, one in last.items()
        if all(torch.allclose(one, other[name], rtol=rtol, atol=atol) for other in others)
    ]


def loss_not_decreasing(
    losses: Sequence[float], num_steps: int = 10, diff_percent: float = 0.0
) -> bool:
    """LossNotDecreasing: at a multiple of `num_steps`, the loss is not below that before them.

    With `diff_percent`, it must have fallen by as much; by default any decrease will do.
    """
    at = len(losses) - 1
    if at < num_steps or at % num_steps:
        return False
    return not losses[at] < losses[at - num_steps] * (1 - diff_percent / 100)


def overfit(
    training: Sequence[float],
    validation: Sequence[float],
    start_step: int = 0,
    patience: int = 1,
    ratio_threshold: float = 0.1,
) -> bool:
    """Overfit: (validation - training) / training is above 0.1 for `patience` validations."""
    pairs = list(zip(training, validation, strict=True))[start_step:][-patience:]
    return len(pairs) == patience and all(
        (held - own) / own > ratio_threshold for own, held in pairs if own
    )


def stalled_training(seconds_without_tensors: float, threshold: float = 1800.0) -> bool:
    """StalledTrainingRule: no tensor has been saved for half an hour, by the clock."""
    return seconds_without_tensors > threshold


def poor_weight_initialization(
    activation_inputs: Named,
    gradients: Named,
    step: int,
    threshold: float = 10.0,
    distribution_range: float = 0.001,
    steps: int = 10,
) -> bool:
    """PoorWeightInitialization, in the first 10 steps.

    Returns True if the largest variance of the activations' inputs is over 10 times the smallest,
    or if the 5th and 95th percentile of some gradient lie less than 0.001 apart, as the page says
    of each. It also speaks of the loss (`patience`), but not of when that returns True.
    """
    if step >= steps:
        return False
    variances = [float(one.float().var()) for one in activation_inputs.values()]
    if len(variances) > 1 and max(variances) > threshold * min(variances):
        return True
    ends = torch.tensor([0.05, 0.95])
    widths = []
    for one in gradients.values():
        low, high = torch.quantile(one.float().flatten()[:1_000_000], ends)
        widths.append(float(high - low))
    return bool(widths) and min(widths) < distribution_range
