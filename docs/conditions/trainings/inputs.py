"""The pixels are given to the network from 0 to 255, as they are in the file."""

from pathlib import Path

from small_training import digits, perceptron, train


def ill(folder: Path) -> Path:
    """With pixels from 0 to 255."""
    pixels, classes = digits()
    return train(perceptron(), folder, data=((255 * pixels).round(), classes))


def mended(folder: Path) -> Path:
    """With pixels from 0 to 1."""
    return train(perceptron(), folder)
