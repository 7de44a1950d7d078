"""A fault, and what planting one needs to know of a model."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from training import Outcome, Training, untouched

from planted.truth import Truth

# What a training does that does not learn at all, or that diverges.
ADRIFT = frozenset(
    {
        "not-learning", "overshooting", "spiking", "dead", "saturated", "exploding", "vanishing",
        "collapsed", "non-finite", "stalled", "exploding-in-time", "vanishing-in-time",
        "overfitting", "stale-statistics", "lost-to-rounding", "underflow", "noisy",
    }
)  # fmt: skip
FLAT = frozenset({"not-learning", "collapsed", "noisy"})
SHARE_LEFT = 0.93  # of the measure, at least, where a fault is said to keep a model from learning


def is_flat(_: Training, outcome: Outcome) -> bool:
    """Whether the model learnt next to nothing."""
    return not outcome.share < SHARE_LEFT


def always(_: Training, __: Outcome) -> bool:
    """The fault is there by construction."""
    return True


@dataclass(frozen=True)
class Fault:
    """A fault that is planted into a healthy training.

    Fields:
        key: its name.
        kinds: those into which it is planted in turn.
        plant: changes the training, and says what is true of it then.
        holds: whether the trained model has the fault, by measures of this benchmark's own; a
            training where it has not is not counted.
        share: of the usual number of trainings; below 1 for those that take long.
    """

    key: str
    kinds: tuple[str, ...]
    plant: Callable[[Training, random.Random], Truth]
    holds: Callable[[Training, Outcome], bool] = always
    share: float = 1.0


def start(training: Training, draw: random.Random) -> int | None:
    """From which step on a fault is there: the beginning, or one of the first half."""
    return None if draw.random() < 0.6 else draw.randrange(training.steps // 4, training.steps // 2)


def begun(step: int, first: int | None) -> bool:
    """Whether the fault is there at `step`."""
    return first is None or step >= first


def modules_with_parameters(model: nn.Module) -> list[str]:
    """Names of the modules that have trained parameters of their own."""
    return [
        name
        for name, module in model.named_modules()
        if any(one.requires_grad for one in module.parameters(recurse=False))
    ]


def before_head(training: Training) -> list[str]:
    """Modules with trained parameters outside the head."""
    head = training.head
    return [
        name
        for name in modules_with_parameters(training.model)
        if name != head and not name.startswith(f"{head}.")
    ]


def outputs_of(training: Training, names: list[str]) -> list[tuple[str, Tensor]]:
    """The first outputs of `names` on one batch, in the order in which they run, with their grads.

    The gradients are those of the loss at the start; `.grad` of each tensor holds it.
    """
    kept: list[tuple[str, Tensor]] = []
    modules = dict(training.model.named_modules())

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.retain_grad()
                kept.append((name, tensor))

        return hook

    handles = [modules[name].register_forward_hook(note(name)) for name in names]
    with untouched(training.model):
        training.loss(training.model, *training.batch_of(0)).backward()
    for handle in handles:
        handle.remove()
    training.model.zero_grad()
    return kept


def factor_over_depth(training: Training) -> float:
    """Gradient norm at the first linear or convolutional layer over that at the last but one."""
    names = [
        name
        for name, module in training.model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    kept = [one.grad.norm() for _, one in outputs_of(training, names) if one.grad is not None]
    if len(kept) < 3 or not torch.isfinite(torch.stack(kept)).all() or kept[-2] == 0:
        return float("nan")
    return float(kept[0] / kept[-2])
