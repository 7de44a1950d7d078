"""The gradient is clipped to a norm of 1e-6, a millionth of what it is."""

from pathlib import Path

from small_training import perceptron, train
from torch import nn


def clip_to(norm: float):
    """What clips the gradient of a model to `norm`."""
    return lambda model: nn.utils.clip_grad_norm_(model.parameters(), norm)


def ill(folder: Path) -> Path:
    """Clipped to 1e-6."""
    return train(perceptron(), folder, before_update=clip_to(1e-6))


def mended(folder: Path) -> Path:
    """Clipped to 10."""
    return train(perceptron(), folder, before_update=clip_to(10.0))
