"""The weights of sixteen layers are twice as large as He initialization makes them."""

from pathlib import Path

import torch
from small_training import perceptron, train
from torch import nn


def scaled(gain: float) -> nn.Sequential:
    """A perceptron whose weights have `gain` times the standard deviation of He et al. 2015."""
    model = perceptron(16)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            with torch.no_grad():
                layer.weight.mul_(gain)
    return model


def ill(folder: Path) -> Path:
    """Twice as large: the gradient doubles in each layer."""
    return train(scaled(2.0), folder, rate=1e-9)


def mended(folder: Path) -> Path:
    """As He et al. have it."""
    return train(scaled(1.0), folder, rate=0.01)
