"""The optimizer has the parameters of the head alone, and the others have gradients too."""

from pathlib import Path

import torch
from small_training import perceptron, train


def ill(folder: Path) -> Path:
    """With an optimizer of the head."""
    model = perceptron()
    return train(model, folder, optimizer=torch.optim.SGD(model[-1].parameters(), 0.3))


def mended(folder: Path) -> Path:
    """With an optimizer of all parameters."""
    model = perceptron()
    return train(model, folder, optimizer=torch.optim.SGD(model.parameters(), 0.3))
