"""A network tells the digit and redraws it; the drawing's pixels count from 0 to 255."""

from pathlib import Path

import torch
from small_training import digits, perceptron, train
from torch import Tensor, nn
from torch.nn import functional as F


def trained(folder: Path, white: float) -> Path:
    """Train with drawings whose white is this number; the first 10 outputs tell the digit."""
    pixels, classes = digits()

    def loss(outputs: Tensor, chosen: Tensor) -> dict[str, tuple[float, Tensor]]:
        error = F.mse_loss(white * outputs[:, 10:], white * pixels[chosen])
        digit = F.cross_entropy(outputs[:, :10], classes[chosen])
        return {"digit": (1.0, digit), "drawing": (1.0, error)}

    model = nn.Sequential(*perceptron()[:-1], nn.Linear(64, 74))
    data = pixels, torch.arange(len(classes))  # the number of an image stands for its targets
    return train(model, folder, rate=0.3 / white**2, data=data, loss=loss, terms=5)


def ill(folder: Path) -> Path:
    """With pixels from 0 to 255: the error is 255 squared times as large."""
    return trained(folder, 255.0)


def mended(folder: Path) -> Path:
    """With pixels from 0 to 3: both errors are of one size."""
    return trained(folder, 3.0)
