"""What most kinds draw alike: optimizer, learning rate, schedule, precision, and batches."""

import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import Batch, Loss, Training

# Ranges of learning rates at which small models of the usual kinds train well.
RATES = {
    "SGD": (0.05, 0.15),
    "momentum": (0.01, 0.03),
    "Adam": (1e-3, 3e-3),
    "AdamW": (1e-3, 3e-3),
    "GAN's Adam": (1e-3, 2e-3),
}


def constant(_: float) -> float:
    """The learning rate stays."""
    return 1.0


def warm_up(t: float) -> float:
    """It rises over the first eighth."""
    return min(1.0, t * 8 + 0.02)


def cosine(t: float) -> float:
    """It falls to a hundredth along a cosine."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * t)) / 2


def warm_up_and_cosine(t: float) -> float:
    """Both."""
    return warm_up(t) * cosine(t)


def stepped(t: float) -> float:
    """A tenth from two thirds on."""
    return 1.0 if t < 2 / 3 else 0.1


SCHEDULES = (constant, warm_up, cosine, warm_up_and_cosine, stepped)


def pool(
    inputs: Tensor, targets: Tensor, size: int, seed: int
) -> tuple[Callable[[int], Batch], Callable[[int], Batch]]:
    """Batches of `size` from four fifths of the samples, and from the held-out others."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    cut = len(inputs) * 4 // 5
    parts = order[:cut], order[cut:]

    def batches(part: Tensor) -> Callable[[int], Batch]:
        def batch(step: int) -> Batch:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            chosen = part[torch.randint(len(part), (size,), generator=generator)]
            return inputs[chosen], targets[chosen]

        return batch

    return batches(parts[0]), batches(parts[1])


def classify(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the last axis of the outputs."""
    outputs = model(inputs).float()
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def regress(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(model(inputs).float(), targets)


def recipe(  # noqa: PLR0913 - what a kind leaves to chance
    draw: random.Random,
    kind: str,
    model: nn.Module,
    batches: tuple[Callable[[int], Batch], Callable[[int], Batch] | None],
    loss: Loss,
    *,
    steps: tuple[int, int],
    head: str,
    classes: int = 0,
    rules: Sequence[str] = ("SGD", "momentum", "Adam", "AdamW"),
    factor: float = 1.0,
    schedules: Sequence[Callable[[float], float]] = SCHEDULES,
    half: bool = True,
    learns: float = 0.8,
    words: Sequence[str] = (),
) -> Training:
    """A training with optimizer, rate, schedule and precision drawn from healthy ranges.

    Args:
        draw: the random numbers.
        kind, model, loss, head, classes, learns: see `Training`.
        batches: for training, and held out.
        steps: the smallest and largest number.
        rules: the optimizers to choose from.
        factor: of the usual learning rates.
        schedules: those to choose from.
        half: whether the kind trains well in bfloat16.
        words: what else was drawn.
    """
    rule = draw.choice(list(rules))
    low, high = RATES[rule]
    schedule = draw.choice(list(schedules))
    training = Training(
        kind,
        model.train(),
        batches[0],
        loss,
        rule,
        factor * math.exp(draw.uniform(math.log(low), math.log(high))),
        draw.randrange(*steps),
        head,
        learns=learns,
        decay=draw.choice([0.0, 0.0, 0.01 if rule == "AdamW" else 1e-4]),
        held=batches[1],
        classes=classes,
        schedule=schedule,
        clip=draw.choice([None, None, 1.0, 5.0]),
        epochs=draw.choice([1, 3, 8]),
        words=[rule, schedule.__name__, *words],
    )
    precision = draw.choice(["float32"] * 4 + (["autocast", "bfloat16"] if half else []))
    if precision == "autocast":
        training.autocast = torch.bfloat16
    if precision == "bfloat16":
        training.model.to(torch.bfloat16)
        # Weights of 8 bits do not hold the small steps of a decaying rate.
        training.schedule = draw.choice([constant, warm_up])
        training.lr *= 2
        training.words[1] = training.schedule.__name__
    training.words.append(precision)
    return training


def freeze(training: Training, modules: Sequence[nn.Module], words: str) -> None:
    """Leave some layers out of training on purpose."""
    for module in modules:
        module.requires_grad_(False)
    training.words.append(words)
