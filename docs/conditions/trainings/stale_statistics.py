"""The momentum of the batch norms is so small that they still have most of their start in them."""

from functools import partial
from pathlib import Path

from small_training import perceptron, train
from torch import nn


def ill(folder: Path) -> Path:
    """With a momentum of 0.001: an average over a thousand steps."""
    return train(perceptron(norm=partial(nn.BatchNorm1d, momentum=1e-3)), folder)


def mended(folder: Path) -> Path:
    """With a momentum of 0.1."""
    return train(perceptron(norm=nn.BatchNorm1d), folder, rate=0.02)
