"""Faults in numbers: inputs, learning rates, clipping, precision, initial weights."""

import math
import random
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from training import Outcome, Training

from planted.fault import (
    ADRIFT,
    FLAT,
    Fault,
    begun,
    factor_over_depth,
    is_flat,
    outputs_of,
    start,
)
from planted.truth import Truth

IMAGES = ("perceptron, digits", "resnet", "mobilenet", "u-net", "vision transformer", "mixer")
FLOATS = (*IMAGES, "autoencoder", "variational autoencoder", "perceptron, tables", "lstm", "gru")
DEEP = ("plain perceptron, deep",)


def inputs_become(
    change: Callable[[Tensor], Tensor], cause: str, effects: frozenset[str]
) -> Callable[[Training, random.Random], Truth]:
    """A fault that passes all inputs through `change`, from the start or after a while."""

    def plant(training: Training, draw: random.Random) -> Truth:
        first = None if cause == "input-scale" else start(training, draw)

        def transform(step: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            return (change(inputs) if begun(step, first) else inputs), targets

        training.transforms.append(transform)
        return Truth(("inputs",), effects, cause, (), first)

    return plant


def _to_bytes(x: Tensor) -> Tensor:
    # The digits' pixels were 0 to 16 before they were standardized; -0.9 is the darkest.
    low, high = x.min(), x.max()
    return ((x - low) / (high - low) * 255).round()


def tiny_rate(training: Training, draw: random.Random) -> Truth:
    """A learning rate of about a billionth."""
    training.lr = draw.choice([1e-9, 3e-9, 1e-8])
    training.autocast = None
    training.model.float()
    return Truth(("stalled", "lost-to-rounding"), FLAT, "small-rate")


def huge_rate(training: Training, draw: random.Random) -> Truth:
    """A learning rate hundreds of times too large."""
    training.lr *= draw.choice([200, 500, 1000])
    training.clip = None
    return Truth(("overshooting", "non-finite", "spiking"), ADRIFT, "large-rate")


def has_diverged(_: Training, outcome: Outcome) -> bool:
    """Whether the measure did not fall by half, or is not a number."""
    return not outcome.share < 0.9


def clipped(training: Training, draw: random.Random) -> Truth:
    """A bound of the gradient's norm of a millionth, with gradient descent."""
    training.rule, training.clip = draw.choice(["SGD", "momentum"]), draw.choice([1e-6, 1e-5])
    training.lr, training.decay = draw.uniform(0.01, 0.1), 0.0
    return Truth(("clipped",), FLAT | {"stalled", "lost-to-rounding"}, "clipping")


def rounded(training: Training, draw: random.Random) -> Truth:
    """Weights in bfloat16 with a rate so small that most updates are lost beside them."""
    training.autocast = None
    training.model.to(torch.bfloat16)
    training.rule = draw.choice(["Adam", "AdamW", "SGD"])
    training.lr = draw.choice([1e-5, 3e-6]) if training.rule != "SGD" else 1e-5
    training.decay = 0.0
    return Truth(("lost-to-rounding", "stalled"), FLAT | {"stalled"}, "rounding")


def tiny_loss(training: Training, draw: random.Random) -> Truth:
    """All in float16, with a loss of a hundred-thousandth and no scale of it, as by a mean."""
    factor, plain = draw.choice([1e-5, 3e-6]), training.loss
    training.autocast = None
    training.model.half()
    training.rule, training.lr, training.decay = "SGD", draw.uniform(0.05, 0.1), 0.0
    training.clip = None
    training.loss = lambda *given: factor * plain(*given)
    effects = FLAT | {"stalled", "vanishing", "lost-to-rounding", "disconnected", "not-updated"}
    return Truth(("underflow",), effects, "float16")


def is_too_small(training: Training, _: Outcome) -> bool:
    """Whether no layer's gradient reaches float16's smallest normal number."""
    names = [name for name, one in training.model.named_modules() if isinstance(one, nn.Linear)]
    kept = outputs_of(training, names)
    return all(one.grad is None or float(one.grad.abs().max()) < 2.0**-14 for _, one in kept)


def bad_batch(training: Training, draw: random.Random) -> Truth:
    """One batch whose inputs are a few hundred times too large."""
    first = draw.randrange(training.steps // 2, training.steps * 3 // 4)
    factor = draw.choice([200, 1000])

    def transform(step: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return (inputs * factor if step == first else inputs), targets

    training.transforms.append(transform)
    training.clip = None
    return Truth(("spiking",), ADRIFT | {"inputs"}, "bad-batch", (), first)


def spikes(_: Training, outcome: Outcome) -> bool:
    """Whether the loss of one step is five times the usual one of the steps before it."""
    losses = torch.tensor(outcome.losses)
    usual = torch.stack(
        [losses[max(0, step - 10) : step].median() for step in range(1, len(losses))]
    )
    return bool((losses[1:] > 5 * usual).any())


def logarithm_of_zero(training: Training, draw: random.Random) -> Truth:
    """A logarithm of probabilities without a floor, which reach 0 from some step on."""
    first = draw.randrange(2, training.steps // 2)
    plain, now = training.loss, [0]
    training.before_step.append(lambda step: now.__setitem__(0, step))

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        if now[0] < first:
            return plain(model, inputs, targets)
        outputs = model(inputs).float().flatten(0, -2)
        shares = (outputs * 1e5).softmax(-1)
        return -shares.log().gather(1, targets.flatten()[:, None]).mean()

    training.loss = loss
    inner = training.model.get_submodule(training.head)
    last = [
        f"{training.head}.{name}" if name else training.head for name, _ in inner.named_modules()
    ]
    return Truth(("non-finite",), ADRIFT, "not-finite", tuple(last), first)


def scaled_weights(factor: float) -> Callable[[Training, random.Random], Truth]:
    """All weights of a plain deep network times `factor`."""

    def plant(training: Training, draw: random.Random) -> Truth:
        large = factor > 1
        with torch.no_grad():
            for name, one in training.model.named_parameters():
                if name.endswith("weight") and one.dim() > 1:
                    one.mul_(factor if large else draw.uniform(0.1, 0.25))
        training.clip = 1.0 if large else None
        if not large:
            training.rule, training.lr = "SGD", 0.05
        found = factor_over_depth(training)
        training.words.append(f"factor {found:.1e}")
        if large:
            return Truth(
                ("exploding", "overshooting", "saturated", "non-finite"),
                ADRIFT | {"clipped"},
                "initialization",
            )
        return Truth(("vanishing",), ADRIFT, "initialization")

    return plant


def flows_badly(training: Training, outcome: Outcome) -> bool:
    """Whether the gradient changes a hundredfold over the depth, at the start and at the end."""
    found = factor_over_depth(training)
    early = float(next(one for one in training.words if one.startswith("factor")).split()[1])
    vanishes = found < 1e-2 and early < 1e-2
    return vanishes or early > 1e2 or math.isinf(outcome.share)


def dead_units(training: Training, draw: random.Random) -> Truth:
    """Biases of -10 before one ReLU."""
    names = list(dict(training.model.named_modules()))
    modules = dict(training.model.named_modules())
    pairs = [
        (first, second)
        for first, second in pairwise(names)
        if isinstance(modules[second], nn.ReLU)
        and getattr(modules[first], "bias", None) is not None
    ]
    first, second = draw.choice(pairs)
    with torch.no_grad():
        modules[first].bias.fill_(-10.0)
    training.words.append(f"dead {second}")
    return Truth(("dead",), FLAT | {"vanishing", "stalled", "exploding"}, "bias", (first, second))


def is_dead(training: Training, _: Outcome) -> bool:
    """Whether nearly all units of the layer are still 0 on a batch."""
    name = next(one for one in training.words if one.startswith("dead ")).split()[1]
    kept = outputs_of(training, [name])
    return bool(kept) and float((kept[0][1] > 0).float().mean()) < 0.01


def saturated_units(training: Training, draw: random.Random) -> Truth:
    """Weights before one tanh or sigmoid times 60, of zero sum in each unit."""
    names = list(dict(training.model.named_modules()))
    modules = dict(training.model.named_modules())
    pairs = [
        (first, second)
        for first, second in pairwise(names)
        if isinstance(modules[second], nn.Tanh | nn.Sigmoid)
        and isinstance(modules[first], nn.Linear)
    ]
    first, second = draw.choice(pairs)
    with torch.no_grad():
        weight = modules[first].weight
        weight -= weight.mean(1, keepdim=True)
        weight *= 60 if isinstance(modules[second], nn.Tanh) else 120
    training.clip, training.words = 1.0, [*training.words, f"saturated {second}"]
    effects = frozenset({"vanishing", "not-learning", "stalled", "exploding", "overshooting"})
    return Truth(("saturated",), effects, "pre-activations", (first, second))


def is_saturated(training: Training, _: Outcome) -> bool:
    """Whether the units of the layer still lie at their bounds."""
    name = next(one for one in training.words if one.startswith("saturated ")).split()[1]
    output = outputs_of(training, [name])[0][1].detach().double()
    bounded = isinstance(training.model.get_submodule(name), nn.Sigmoid)
    slope = 4 * output * (1 - output) if bounded else 1 - output**2
    return float(slope.mean()) < 0.08


def in_time(factor: float) -> Callable[[Training, random.Random], Truth]:
    """The recurrent weights of a plain recurrent network times `factor`."""

    def plant(training: Training, _: random.Random) -> Truth:
        with torch.no_grad():
            training.model.recurrent.weight_hh_l0 *= factor
        places = ("recurrent",)
        if factor < 1:
            effects = FLAT | {"vanishing"}
            return Truth(("vanishing-in-time",), effects, "recurrent-weights", places)
        training.clip = 1.0
        effects = ADRIFT | {"clipped"}
        return Truth(("exploding-in-time",), effects, "recurrent-weights", places)

    return plant


def factor_in_time(training: Training) -> float:
    """Gradient norm at the first tenth of the positions over that at the last tenth."""
    inputs, targets = training.batch_of(0)
    model = training.model
    if not inputs.is_floating_point():
        return float("nan")
    given = inputs.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(training.loss(model, given, targets), given)
    norms = gradient.double().norm(dim=(0, 2))
    tenth = max(1, len(norms) // 10)
    return float(norms[:tenth].mean() / norms[-tenth:].mean())


def vanishes_in_time(training: Training, _: Outcome) -> bool:
    """Whether a thousandth or less of the gradient reaches the first inputs."""
    return factor_in_time(training) < 1e-3


def explodes_in_time(training: Training, _: Outcome) -> bool:
    """Whether the gradient at the first inputs is a thousand times that at the last."""
    return factor_in_time(training) > 1e3


# Behind inputs that do not vary, batch norm divides by next to nothing.
SET = FLAT | {
    "dead", "vanishing", "exploding", "stalled", "stale-statistics", "saturated", "overfitting",
}  # fmt: skip
NUMBERS = (
    Fault("inputs of zero", FLOATS, inputs_become(torch.zeros_like, "zero-inputs", SET)),
    Fault(
        "inputs constant",
        FLOATS,
        inputs_become(lambda x: torch.full_like(x, 0.7), "constant-inputs", SET),
    ),
    Fault("inputs from 0 to 255", IMAGES, inputs_become(_to_bytes, "input-scale", ADRIFT)),
    Fault(
        "learning rate of a billionth",
        (
            *IMAGES,
            "transformer, pre-norm",
            "lstm",
            "autoencoder",
            "graph network",
            "embeddings",
            "gan",
        ),
        tiny_rate,
    ),
    Fault(
        "learning rate far too large",
        (*IMAGES, "transformer, pre-norm", "lstm", "autoencoder", "graph network", "gan"),
        huge_rate,
        has_diverged,
    ),
    Fault(
        "clipped to a millionth",
        (*IMAGES, "transformer, pre-norm", "gru", "autoencoder", "graph network"),
        clipped,
    ),
    Fault(
        "weights in bfloat16, a small rate",
        ("perceptron, digits", "resnet", "transformer, pre-norm", "mixer", "autoencoder"),
        rounded,
        is_flat,
    ),
    Fault(
        "a loss too small for float16",
        ("perceptron with ReLUs", "perceptron with sigmoids", "plain perceptron, deep"),
        tiny_loss,
        is_too_small,
        0.5,
    ),
    Fault(
        "one bad batch",
        ("perceptron, digits", "perceptron, tables", "autoencoder"),
        bad_batch,
        spikes,
    ),
    Fault(
        "logarithm of zero",
        ("perceptron, digits", "resnet", "transformer, pre-norm", "mixer", "graph network"),
        logarithm_of_zero,
    ),
    Fault("weights times 10", DEEP, scaled_weights(10.0), flows_badly),
    Fault("weights times 0.1", DEEP, scaled_weights(0.1), flows_badly),
    Fault(
        "dead units",
        ("perceptron with ReLUs", "embeddings", "autoencoder with ReLUs", "u-net without norm"),
        dead_units,
        is_dead,
    ),
    Fault("saturated units", ("perceptron with sigmoids",), saturated_units, is_saturated),
    Fault("recurrent weights times 0.3", ("rnn to the end",), in_time(0.3), vanishes_in_time),
    Fault("recurrent weights times 3", ("rnn to the end",), in_time(3.0), explodes_in_time),
)
