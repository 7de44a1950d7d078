"""optimizer.zero_grad() is forgotten, so each step moves by the sum of all gradients so far."""

from pathlib import Path

from small_training import perceptron, train


def ill(folder: Path) -> Path:
    """Without zero_grad."""
    return train(perceptron(), folder, zero_grad=False)


def mended(folder: Path) -> Path:
    """With it."""
    return train(perceptron(), folder)
