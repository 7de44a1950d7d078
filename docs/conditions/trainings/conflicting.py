"""Two terms of the loss ask the same output for opposite numbers."""

from pathlib import Path

from small_training import perceptron, train
from torch import Tensor
from torch.nn import functional as F


def of_one_output(outputs: Tensor, targets: Tensor) -> dict[str, tuple[float, Tensor]]:
    """Whether the digit is 5 or more, as 1 or -1, and the opposite, from the same output."""
    sign = 2.0 * (targets >= 5) - 1
    one, other = F.mse_loss(outputs[:, 0], sign), F.mse_loss(outputs[:, 0], -sign)
    return {"sign": (1.0, one), "opposite": (1.0, other)}


def of_two_outputs(outputs: Tensor, targets: Tensor) -> dict[str, tuple[float, Tensor]]:
    """Each from an output of its own."""
    sign = 2.0 * (targets >= 5) - 1
    one, other = F.mse_loss(outputs[:, 0], sign), F.mse_loss(outputs[:, 1], -sign)
    return {"sign": (1.0, one), "opposite": (1.0, other)}


def ill(folder: Path) -> Path:
    """From the same output."""
    return train(perceptron(), folder, rate=0.05, loss=of_one_output, terms=5)


def mended(folder: Path) -> Path:
    """From two outputs."""
    return train(perceptron(), folder, rate=0.05, loss=of_two_outputs, terms=5)
