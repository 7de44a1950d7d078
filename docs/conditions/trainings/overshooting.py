"""The learning rate is twenty times too large."""

from pathlib import Path

from small_training import perceptron, train


def ill(folder: Path) -> Path:
    """With a learning rate of 6."""
    return train(perceptron(), folder, rate=6.0)


def mended(folder: Path) -> Path:
    """With a learning rate of 0.3."""
    return train(perceptron(), folder)
