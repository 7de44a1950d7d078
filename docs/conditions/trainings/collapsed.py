"""Weight decay has pulled all weights to 0, so the outputs are alike for all inputs."""

from pathlib import Path

import torch
from small_training import perceptron, train


def trained(folder: Path, decay: float) -> Path:
    """Train with this weight decay."""
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), 0.3, weight_decay=decay)
    return train(model, folder, optimizer=optimizer)


def ill(folder: Path) -> Path:
    """With a weight decay of 0.3."""
    return trained(folder, 0.3)


def mended(folder: Path) -> Path:
    """With a weight decay of 1e-4."""
    return trained(folder, 1e-4)
