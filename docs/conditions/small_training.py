"""What the trainings of these pages share: the digits, a perceptron, and a traced loop.

Axis letters: N samples of a batch, F features (64 pixels), K classes (10 digits).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow
from gradflow.data import Batch
from gradflow.probes.execution import copy_without_hooks
from gradflow.probes.probe import Subject, Tables

Loss = Callable[[Tensor, Tensor], Tensor | Mapping[str, tuple[float, Tensor]]]


def digits() -> tuple[Tensor, Tensor]:
    """The digits of scikit-learn: pixels from 0 to 1, [1797, F], and classes, [1797]."""
    pixels, classes = load_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(classes)


def perceptron(
    layers: int = 3,
    activation: Callable[[], nn.Module] = nn.ReLU,
    norm: Callable[[int], nn.Module] | None = None,
) -> nn.Sequential:
    """`layers` hidden layers of 64 units and a head: [N, F] to [N, K]."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Linear(64, 64), *([norm(64)] if norm else []), activation()]
    return nn.Sequential(*modules, nn.Linear(64, 10))


def train(  # noqa: PLR0913 - all by keyword
    model: nn.Module,
    folder: Path,
    *,
    rate: float = 0.3,
    steps: int = 180,
    epochs: int = 3,
    batch: int = 64,
    data: tuple[Tensor, Tensor] | None = None,
    loss: Loss = F.cross_entropy,
    optimizer: torch.optim.Optimizer | None = None,
    before_update: Callable[[nn.Module], object] = lambda model: None,
    zero_grad: bool = True,
    after_epoch: Callable[[nn.Module], Mapping[str, float] | None] = lambda model: None,
    probe: Callable[[Subject], Tables] | None = None,
    **tracing: Any,
) -> Path:
    """Train `model` under a tracer that writes `folder`; return `folder`.

    Args:
        loss: of outputs and targets: a number, or its terms by name, each with its weight.
        before_update: called with the model between the backward pass and the update.
        zero_grad: whether gradients are removed before each backward pass.
        after_epoch: called with the model at each epoch's end; returns scalars of the epoch.
        probe: a measurement that runs the network once more, at the end of each epoch.
    """
    inputs, targets = data or digits()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), rate)
    draw = torch.Generator().manual_seed(0)
    with gradflow.Tracer(model, folder, optimizer=optimizer, **tracing) as tracer:
        for _ in range(epochs):
            total = 0.0
            for _ in range(steps // epochs):
                chosen = torch.randint(len(inputs), (batch,), generator=draw)
                value = loss(model(inputs[chosen]), targets[chosen])
                if isinstance(value, Mapping):
                    tracer.terms(value)
                    value = torch.stack([weight * term for weight, term in value.values()]).sum()
                tracer.log(loss=value)
                if zero_grad:
                    optimizer.zero_grad()
                value.backward()
                before_update(model)
                optimizer.step()
                total += value.item()
            mean = total / (steps // epochs)
            if probe is not None:
                for table, columns in probe(subject(model, inputs, targets)).items():
                    tracer.write_table(table, columns)
            tracer.end_epoch(train_loss=mean, **(after_epoch(model) or {}))
    return folder


def subject(model: nn.Module, inputs: Tensor, targets: Tensor) -> Subject:
    """What a probe measures: a copy of the network, and all samples."""
    every = Batch(inputs, targets, torch.arange(len(targets)))
    few = Batch(inputs[:24], targets[:24], every.indices[:24])
    copy = copy_without_hooks(model)
    return Subject(copy, 1, True, False, None, few, lambda: [every], lambda: [every], 0)
