"""Eighty plain layers with batch norms: neighbouring inputs get unrelated gradients."""

from functools import partial
from pathlib import Path

from small_training import perceptron, train
from torch import Tensor, nn

from gradflow.probes.gradients.shattering import shattering


class Residual(nn.Module):
    """Two of the plain layers in a branch of a tenth, and a skip around them."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(*perceptron(2, norm=nn.BatchNorm1d)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """The inputs, and a tenth of what the branch makes of them."""
        return x + 0.1 * self.branch(x)


def trained(folder: Path, model: nn.Module) -> Path:
    """Train it, and look at its gradients along lines between digits."""
    probe = partial(shattering, points=128, lags=4)
    return train(model, folder, rate=0.003, steps=60, epochs=1, probe=probe)


def ill(folder: Path) -> Path:
    """Eighty layers, one after the other."""
    return trained(folder, perceptron(80, norm=nn.BatchNorm1d))


def mended(folder: Path) -> Path:
    """With a skip around each two of them."""
    return trained(folder, nn.Sequential(*(Residual() for _ in range(40)), nn.Linear(64, 10)))
