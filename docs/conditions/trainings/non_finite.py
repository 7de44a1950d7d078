"""Features are divided by their standard deviation, which is 0 for a unit that is always off."""

from pathlib import Path

from small_training import perceptron, train
from torch import Tensor, nn


class Network(nn.Module):
    """Three layers, a normalization of its own, and a head."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.body, self.head, self.eps = perceptron()[:-1], nn.Linear(64, 10), eps

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, F] to [N, K]."""
        features = self.body(x)
        variance = features.var(0, unbiased=False)
        outputs: Tensor = self.head((features - features.mean(0)) / (variance + self.eps).sqrt())
        return outputs


def ill(folder: Path) -> Path:
    """Without anything added to the variance: 0 / 0."""
    return train(Network(0.0), folder)


def mended(folder: Path) -> Path:
    """With 1e-5 added to the variance, as batch normalization has it."""
    return train(Network(1e-5), folder, rate=0.1)
