"""The encoder's output is detached before the head, so that no gradient flows back into it."""

from pathlib import Path

from small_training import perceptron, train
from torch import Tensor, nn


class Network(nn.Module):
    """An encoder and a head."""

    def __init__(self, *, detached: bool) -> None:
        super().__init__()
        self.encoder, self.head = perceptron()[:-1], nn.Linear(64, 10)
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, F] to [N, K]."""
        features = self.encoder(x)
        outputs: Tensor = self.head(features.detach() if self.detached else features)
        return outputs


def ill(folder: Path) -> Path:
    """With features.detach()."""
    return train(Network(detached=True), folder)


def mended(folder: Path) -> Path:
    """Without it."""
    return train(Network(detached=False), folder)
