"""Faults in what is optimized: too few samples, terms of a loss, networks without warm-up."""

import random

import torch
from torch import Tensor, nn
from training import Outcome, Terms, Training, summed

from planted.fault import ADRIFT, FLAT, Fault
from planted.truth import Truth


def overfitting(training: Training, draw: random.Random) -> Truth:
    """Forty samples with labels at random, learnt by heart while the held-out loss rises."""
    few = draw.choice([24, 40])
    inputs, targets = training.batch(0)
    while len(inputs) < few:
        more = training.batch(len(inputs))
        inputs, targets = torch.cat([inputs, more[0]]), torch.cat([targets, more[1]])
    inputs, targets = inputs[:few], targets[:few]
    targets = targets[torch.randperm(few, generator=torch.Generator().manual_seed(0))]

    def batch(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randperm(few, generator=generator)[:16]
        return inputs[chosen], targets[chosen]

    training.batch = batch
    training.steps, training.epochs, training.decay = 150, 10, 0.0
    training.schedule = lambda _: 1.0
    training.rule, training.lr = "AdamW", 3e-3
    return Truth(("overfitting",), frozenset({"stale-statistics", "noisy"}), "memorized")


def overfits(_: Training, outcome: Outcome) -> bool:
    """Whether the loss in training falls to a half while that of held-out data rises by half."""
    return (
        len(outcome.held) > 3
        and outcome.losses[-1] < 0.5 * outcome.losses[0]
        and outcome.held[-1] > 1.5 * min(outcome.held)
    )


def without_warm_up(training: Training, draw: random.Random) -> Truth:
    """A post-norm transformer of 18 blocks at the full rate from the first step on."""
    training.schedule = lambda _: 1.0
    training.rule, training.lr = "Adam", draw.uniform(2e-3, 5e-3)
    training.steps, training.clip, training.epochs = 50, None, 1
    kinds = ("not-learning", "vanishing", "overshooting", "collapsed", "exploding", "stalled")
    return Truth(kinds, ADRIFT, "warm-up")


def knows_frequencies_only(_: Training, outcome: Outcome) -> bool:
    """Whether the loss is not below that of characters by their frequency alone.

    That is 2.9 nats; the loss at the start is 3.9 or more.
    """
    return not outcome.after < 2.8


def dominated(training: Training, draw: random.Random) -> Truth:
    """The divergence weighs ten thousand times as much as it should."""
    terms, weight = training.terms, draw.choice([1e4, 1e5])
    assert terms is not None

    def weighted(model: nn.Module, inputs: Tensor, targets: Tensor) -> Terms:
        found = terms(model, inputs, targets)
        return {**found, "prior": (weight, found["prior"][1])}

    training.terms = weighted
    training.loss = lambda *given: summed(weighted(*given))
    return Truth(("dominated",), ADRIFT | FLAT, "terms")


def conflicting(training: Training, _: random.Random) -> Truth:
    """A second term that pulls the images towards their opposites."""

    def opposed(model: nn.Module, inputs: Tensor, targets: Tensor) -> Terms:
        images = model(inputs)[0].float()
        toward, away = (images - targets).square().mean(), (images + targets).square().mean()
        return {"images": (1.0, toward), "opposite": (0.9, away)}

    training.terms = opposed
    training.loss = lambda *given: summed(opposed(*given))
    training.measure = None
    return Truth(("conflicting",), ADRIFT | FLAT, "terms")


GOALS = (
    Fault(
        "few samples, labels at random",
        ("perceptron, digits", "resnet", "mixer"),
        overfitting,
        overfits,
    ),
    Fault(
        "eighteen blocks, no warm-up",
        ("transformer, deep",),
        without_warm_up,
        knows_frequencies_only,
        0.5,
    ),
    Fault("a term dominates", ("variational autoencoder",), dominated),
    Fault("terms in conflict", ("variational autoencoder",), conflicting),
)
