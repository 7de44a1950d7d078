"""The learning rate is so small that the weights hardly move."""

from pathlib import Path

from small_training import perceptron, train


def ill(folder: Path) -> Path:
    """With a learning rate of 1e-9."""
    return train(perceptron(), folder, rate=1e-9)


def mended(folder: Path) -> Path:
    """With a learning rate of 0.3."""
    return train(perceptron(), folder)
