"""The logarithm is taken of a probability that has become 0."""

from pathlib import Path

import torch
from small_training import perceptron, train
from torch import Tensor
from torch.nn import functional as F


def of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy from probabilities, which underflow to 0 for sure outputs."""
    chosen = (50 * outputs).softmax(1).gather(1, targets[:, None])
    return -torch.log(chosen).mean()


def of_logits(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same from logits, without taking the logarithm of a number that has underflown."""
    return F.cross_entropy(50 * outputs, targets)


def ill(folder: Path) -> Path:
    """With the logarithm of probabilities."""
    return train(perceptron(), folder, rate=0.02, loss=of_probabilities)


def mended(folder: Path) -> Path:
    """With the logarithm of the softmax, computed in one."""
    return train(perceptron(), folder, rate=0.02, loss=of_logits)
