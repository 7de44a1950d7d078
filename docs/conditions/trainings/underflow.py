"""The loss is so small that its gradients are below what float16 can hold."""

from pathlib import Path

from small_training import digits, perceptron, train
from torch.nn import functional as F


def trained(folder: Path, scale: float) -> Path:
    """Train in float16 with the loss times `scale`."""
    pixels, classes = digits()
    return train(
        perceptron().half(),
        folder,
        rate=0.3,
        data=(pixels.half(), classes),
        loss=lambda outputs, targets: scale * F.cross_entropy(outputs.float(), targets),
    )


def ill(folder: Path) -> Path:
    """With a loss that is scaled down, as by a mean over 100,000 pixels."""
    return trained(folder, 1e-5)


def mended(folder: Path) -> Path:
    """With the loss as it is."""
    return trained(folder, 1.0)
