"""Trainings of small real models: one healthy, one whose gradients vanish, one with dead units."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow

WIDTH = 16


def tanh_network() -> nn.Module:
    layers = [nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 2))


def deep_sigmoids() -> nn.Module:
    """The derivative of a sigmoid is a quarter at most: twelve in a row let gradients vanish."""
    layers = [part for _ in range(12) for part in (nn.Linear(WIDTH, WIDTH), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 2))


def dead_relus() -> nn.Module:
    """No input brings a unit of the second layer above its bias of -100."""
    model = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2)
    )
    nn.init.constant_(model[2].bias, -100.0)
    return model


MODELS = {"healthy": tanh_network, "vanishing": deep_sigmoids, "dead": dead_relus}


def train(folder: Path, model: nn.Module, name: str) -> Path:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, WIDTH, generator=generator)
    targets = (inputs.sum(1) > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    description = {"network": name, "seed": 0}
    with gradflow.Tracer(model, folder, optimizer=optimizer, description=description) as tracer:
        for _ in range(2):
            for _ in range(8):
                optimizer.zero_grad()
                given = inputs + 1e-4 * torch.randn(inputs.shape, generator=generator)
                loss = nn.functional.cross_entropy(model(given), targets)
                loss.backward()
                optimizer.step()
            tracer.end_epoch(train_loss=loss.item())
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a recorded training: of the model `healthy`, `vanishing` or `dead`."""
    folder, done = tmp_path_factory.mktemp("trained"), {}

    def of(name: str) -> Path:
        if name not in done:
            torch.manual_seed(0)
            done[name] = train(folder / name, MODELS[name](), name)
        return done[name]

    return of
