"""Faults that only a probe sees: gradients that are mostly noise, and shattered ones."""

import random

import torch
from torch import Tensor, nn
from training import Outcome, Training

from planted.fault import ADRIFT, FLAT, Fault
from planted.truth import Truth

NOISE_BOUND, SHATTERED_BOUND = 100.0, 0.3
_POOL, _LINES, _POINTS = 512, 6, 128


def noisy(training: Training, draw: random.Random) -> Truth:
    """Batches of one or two samples, nine tenths of which have labels at random."""
    size = draw.choice([1, 2])
    batches = [training.batch(step) for step in range(-(-_POOL // len(training.batch(0)[1])))]
    inputs, targets = (torch.cat(parts)[:_POOL] for parts in zip(*batches, strict=True))
    generator = torch.Generator().manual_seed(draw.randrange(10**6))
    wrong = torch.rand(len(targets), generator=generator) < 0.9
    others = targets[torch.randperm(len(targets), generator=generator)]
    targets = torch.where(wrong, others, targets)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        drawn = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(targets), (size,), generator=drawn)
        return inputs[chosen], targets[chosen]

    training.batch, training.pool = batch, (inputs, targets)
    training.rule, training.lr, training.decay = "SGD", draw.uniform(1e-3, 3e-3), 0.0
    training.schedule, training.clip, training.epochs = lambda _: 1.0, None, 1
    training.steps, training.probes = 400, ("noise_scale",)
    training.autocast = None
    training.model.float()
    return Truth(("noisy",), ADRIFT | FLAT | {"overfitting", "dominated"}, "")


def is_noisy(training: Training, _: Outcome) -> bool:
    """Whether S / |G|^2 over all samples is well above the bound times the batch size.

    Exactly, sample by sample by autograd.
    """
    assert training.pool is not None
    inputs, targets = training.pool
    weights = [one for one in training.model.parameters() if one.requires_grad]
    training.model.eval()
    total, squares = torch.zeros(0), 0.0
    for x, y in zip(inputs, targets, strict=True):
        found = torch.autograd.grad(training.loss(training.model, x[None], y[None]), weights)
        flat = torch.cat([one.flatten() for one in found]).double()
        total = flat if not len(total) else total + flat
        squares += float(flat.square().sum()) / len(inputs)
    signal = float((total / len(inputs)).square().sum())
    size = len(training.batch(0)[1])
    return (squares - signal) / signal > 2 * NOISE_BOUND * size


def shattered(training: Training, draw: random.Random) -> Truth:
    """A plain network of forty to sixty layers with batch norms, and no skip."""
    width, depth = 64, draw.randrange(40, 60)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.BatchNorm1d(width), nn.ReLU()]
    training.model = nn.Sequential(nn.Sequential(*layers), nn.Linear(width, 10)).train()
    training.head, training.autocast, training.clip = "1", None, None
    training.held, training.epochs, training.steps = None, 1, 60
    training.rule, training.lr, training.decay = "SGD", draw.uniform(1e-3, 1e-2), 0.0
    training.schedule, training.probes = lambda _: 1.0, ("shattering",)
    return Truth(("shattered",), ADRIFT | FLAT, "")


def is_shattered(training: Training, _: Outcome) -> bool:
    """Whether neighbouring points of lines between samples have gradients hardly correlated.

    On other samples than those of the probe, by autograd on the inputs.
    """
    inputs, targets = training.batch_of(50_000)
    training.model.eval()
    found = []
    for line in range(_LINES):
        share = torch.linspace(0, 1, _POINTS)[:, None]
        points = (1 - share) * inputs[2 * line] + share * inputs[2 * line + 1]
        points.requires_grad_(True)
        logits = training.model(points)[:, int(targets[2 * line])]
        (gradient,) = torch.autograd.grad(logits.sum(), points)
        centered = gradient - gradient.mean(0)
        near = (centered[1:] * centered[:-1]).sum() / (_POINTS - 1)
        found.append(float(near / (centered.square().sum() / _POINTS)))
    return sum(found) / _LINES < SHATTERED_BOUND / 2


PROBED = (
    Fault("mostly noise", ("perceptron with ReLUs",), noisy, is_noisy, 0.5),
    Fault("deep, plain and shattered", ("perceptron with ReLUs",), shattered, is_shattered, 0.5),
)
