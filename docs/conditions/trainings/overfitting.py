"""Forty digits are learnt by heart, long after that helps with others."""

from pathlib import Path

import torch
from small_training import digits, perceptron, train
from torch import nn
from torch.nn import functional as F

PIXELS, CLASSES = digits()


def validate(model: nn.Module) -> dict[str, float]:
    """The loss and the accuracy on 500 other digits."""
    with torch.no_grad():
        outputs = model(PIXELS[-500:])
    right = (outputs.argmax(1) == CLASSES[-500:]).float().mean()
    loss = F.cross_entropy(outputs, CLASSES[-500:])
    return {"val_loss": float(loss), "val_accuracy": float(right)}


def trained(folder: Path, samples: int) -> Path:
    """Train on so many digits."""
    data = PIXELS[:samples], CLASSES[:samples]
    sizes = {"steps": 400, "epochs": 20, "rate": 0.2}
    return train(perceptron(2), folder, data=data, after_epoch=validate, **sizes)


def ill(folder: Path) -> Path:
    """On 40 digits."""
    return trained(folder, 40)


def mended(folder: Path) -> Path:
    """On 1,200."""
    return trained(folder, 1200)
