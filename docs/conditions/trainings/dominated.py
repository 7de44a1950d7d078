"""A network tells the digit and redraws it; the drawing's pixels count from 0 to 255."""

from pathlib import Path

import torch
from small_training import digits, perceptron, train
from torch import Tensor, nn
from torch.nn import functional as F


def trained(folder: Path, weight: float) -> Path:
    """Train with this weight of the drawing's error; the first 10 outputs tell the digit."""
    pixels, classes = digits()

    def loss(outputs: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        error = F.mse_loss(outputs[:, 10:], pixels[chosen])
        digit = F.cross_entropy(outputs[:, :10], classes[chosen])
        return {"digit": digit, "drawing": weight * error}

    model = nn.Sequential(*perceptron()[:-1], nn.Linear(64, 74))
    data = pixels, torch.arange(len(classes))  # the number of an image stands for its targets
    return train(model, folder, rate=0.3 / weight, data=data, loss=loss, terms=5)


def ill(folder: Path) -> Path:
    """With pixels from 0 to 255: the error is 255 squared times as large."""
    return trained(folder, 255.0**2)


def mended(folder: Path) -> Path:
    """With pixels from 0 to 1, and a weight of 10."""
    return trained(folder, 10.0)
