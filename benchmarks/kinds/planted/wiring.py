"""Faults in how a training is wired: graph, optimizer, modes, the order of its calls."""

import random

import torch
from torch import Tensor, nn
from training import Outcome, Training, held_out_loss, loss_on_others

from planted.fault import (
    ADRIFT,
    FLAT,
    Fault,
    before_head,
    begun,
    is_flat,
    modules_with_parameters,
    start,
)
from planted.truth import Truth

CLASSIFIERS = (
    "perceptron, digits", "resnet", "vision transformer", "mixer", "mobilenet",
    "transformer, pre-norm", "graph network", "embeddings",
)  # fmt: skip
WITH_HEADS = (*CLASSIFIERS, "autoencoder", "lstm", "gru", "rnn", "u-net", "experts")


def detached(training: Training, draw: random.Random) -> Truth:
    """The features are detached before the head."""
    now, first = [0], start(training, draw)
    training.before_step.append(lambda step: now.__setitem__(0, step))

    def detach(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return tuple(one.detach() for one in inputs) if begun(now[0], first) else None

    training.model.get_submodule(training.head).register_forward_pre_hook(detach)
    places = tuple(before_head(training))
    return Truth(("disconnected",), FLAT | {"vanishing"}, "detached", places, first)


def not_in_optimizer(training: Training, draw: random.Random) -> Truth:
    """Whole modules are left out of the optimizer: the first half of them, or the last."""
    places = modules_with_parameters(training.model)
    half = max(1, len(places) // 2)
    left_out = places[:half] if draw.random() < 0.5 else places[-half:]
    chosen = {
        f"{place}.{name}"
        for place in left_out
        for name, _ in training.model.get_submodule(place).named_parameters(recurse=False)
    }
    training.excluded |= chosen
    return Truth(("not-updated",), frozenset({"not-learning"}), "no-optimizer", tuple(left_out))


def never_called(training: Training, draw: random.Random) -> Truth:
    """A module is made and given to the optimizer, but forward forgets it."""
    width = draw.choice([16, 32])
    training.model.forgotten = nn.Sequential(nn.Linear(width, width), nn.ReLU()).to(training.dtype)
    return Truth(("unused",), frozenset(), "never-called", ("forgotten.0",))


def carried_over(training: Training, _: random.Random) -> Truth:
    """Nothing zeroes the gradients."""
    training.zero_grad = False
    training.clip = None
    return Truth(("accumulating",), ADRIFT - {"stalled"}, "carried-over")


def softmax_twice(training: Training, draw: random.Random) -> Truth:
    """A softmax before the cross-entropy, at a rate where the loss then stays."""
    plain = training.loss
    training.rule, training.lr = "SGD", draw.uniform(0.005, 0.02)
    training.decay, training.epochs, training.autocast = 0.0, 1, None
    training.model.float()  # bfloat16 would lose such updates
    head = training.model.get_submodule(training.head)
    head.register_forward_hook(lambda _, __, output: output.float().softmax(-1))
    training.loss = plain
    return Truth(("not-learning",), FLAT | {"vanishing", "stalled"}, "softmax")


def shuffled_labels(training: Training, _: random.Random) -> Truth:
    """The labels of each batch go with other samples."""

    def shuffle(step: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        order = torch.randperm(targets.numel(), generator=generator)
        return inputs, targets.flatten()[order].view(targets.shape)

    training.transforms.append(shuffle)
    return Truth(("not-learning",), FLAT | {"overfitting"}, "labels")


def ascent(training: Training, _: random.Random) -> Truth:
    """The loss has the wrong sign where it is differentiated."""
    training.sign = -1.0
    return Truth(("not-learning", "overshooting", "non-finite"), ADRIFT, "ascent")


def evaluation_mode(training: Training, draw: random.Random) -> Truth:
    """The norms are in evaluation mode from the start, or the whole model from some step on.

    Norms that are so later, with statistics of their own, may be frozen on purpose.
    """
    norms = [
        (name, one)
        for name, one in training.model.named_modules()
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout)
    ]
    whole = draw.random() < 0.6
    first = start(training, draw) if whole else None

    def switch(step: int) -> None:
        if not begun(step, first):
            return
        for _, one in [("", training.model)] if whole else norms:
            one.eval()

    training.before_step.append(switch)
    places = () if whole else tuple(name for name, _ in norms)
    return Truth(("frozen-statistics",), ADRIFT, "evaluation-mode", places, first)


def has_modes(training: Training) -> bool:
    """Whether a module of the model depends on its mode."""
    return any(isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d) for one in training.model.modules())


def stale_statistics(training: Training, draw: random.Random) -> Truth:
    """Batch norm hardly follows: a momentum of a thousandth or less."""
    momentum = draw.choice([1e-3, 3e-4])
    places = []
    for name, one in training.model.named_modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            one.momentum = momentum
            places.append(name)
    return Truth(("stale-statistics",), frozenset({"overfitting"}), "momentum", tuple(places))


def evaluates_worse(training: Training, _: Outcome) -> bool:
    """Whether the loss in evaluation mode is well above that in training mode."""
    here = held_out_loss(training)
    return here is not None and here > 1.3 * loss_on_others(training)


def collapsed(training: Training, draw: random.Random) -> Truth:
    """The features are averaged over the batch, so that all outputs are alike."""
    del draw

    def average(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(one.mean(0, keepdim=True).expand_as(one) for one in inputs)

    training.model.get_submodule(training.head).register_forward_pre_hook(average)
    return Truth(("collapsed",), FLAT | {"vanishing", "stalled"}, "alike")


WITH_NORMS = ("resnet", "mobilenet")

WIRING = (
    Fault("detached before the head", WITH_HEADS, detached),
    Fault("parameters in no optimizer", (*WITH_HEADS, "low-rank adapters"), not_in_optimizer),
    Fault("a module never called", WITH_HEADS, never_called, share=0.7),
    Fault(
        "zero_grad forgotten",
        ("perceptron, digits", "resnet", "transformer, pre-norm", "lstm", "autoencoder", "u-net"),
        carried_over,
    ),
    Fault(
        "softmax before the cross-entropy",
        ("perceptron, digits", "resnet", "mixer", "mobilenet", "vision transformer"),
        softmax_twice,
        is_flat,
    ),
    Fault(
        "labels shuffled",
        ("perceptron, digits", "resnet", "vision transformer", "mixer", "mobilenet"),
        shuffled_labels,
        is_flat,
    ),
    Fault("ascent", (*CLASSIFIERS, "autoencoder", "lstm"), ascent),
    Fault("kept in evaluation mode", WITH_NORMS, evaluation_mode),
    Fault("momentum of the statistics too small", WITH_NORMS, stale_statistics, evaluates_worse),
    Fault(
        "features averaged over the batch",
        ("perceptron, digits", "vision transformer", "mixer", "autoencoder", "resnet"),
        collapsed,
    ),
)
