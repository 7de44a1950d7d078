"""The gradients are smaller than float16 can hold, and the loss is not scaled up."""

from pathlib import Path

from small_training import digits, perceptron, train
from torch.nn import functional as F


def trained(folder: Path, scale: float) -> Path:
    """Train in float16 with the loss times `scale`, and the learning rate divided by it."""
    pixels, classes = digits()
    return train(
        perceptron().half(),
        folder,
        rate=0.3 / scale,
        data=(pixels.half(), classes),
        loss=lambda outputs, targets: scale * F.cross_entropy(outputs.float(), targets),
    )


def ill(folder: Path) -> Path:
    """With a loss that is scaled down, as by a mean over a large image."""
    return trained(folder, 1e-5)


def mended(folder: Path) -> Path:
    """With a loss that is scaled up."""
    return trained(folder, 16.0)
