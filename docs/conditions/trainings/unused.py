"""A layer is made, and forward does not call it."""

from pathlib import Path

from small_training import perceptron, train
from torch import Tensor, nn


class Network(nn.Module):
    """Four layers and an extra one, which runs only if `calls_extra`."""

    def __init__(self, *, calls_extra: bool) -> None:
        super().__init__()
        self.body, self.extra = perceptron(), nn.Linear(10, 10)
        self.calls_extra = calls_extra

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, F] to [N, K]."""
        outputs: Tensor = self.body(x)
        return self.extra(outputs) if self.calls_extra else outputs


def ill(folder: Path) -> Path:
    """Without the call."""
    return train(Network(calls_extra=False), folder)


def mended(folder: Path) -> Path:
    """With it."""
    return train(Network(calls_extra=True), folder)
