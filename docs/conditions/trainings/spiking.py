"""Once in a while a batch is thirty times as bright as the others."""

from pathlib import Path

from small_training import perceptron, train
from torch import Tensor, nn


class Brightened(nn.Module):
    """A perceptron; the inputs of every `period`-th step are thirty times too bright."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.body, self.period, self.step = perceptron(), period, 0

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, F] to [N, K]."""
        self.step += 1
        outputs: Tensor = self.body(30 * x if self.step % self.period == 0 else x)
        return outputs


def ill(folder: Path) -> Path:
    """With a bright batch in every 110th step."""
    return train(Brightened(110), folder, rate=0.1, steps=400)


def mended(folder: Path) -> Path:
    """Without one."""
    return train(Brightened(10**9), folder, rate=0.1, steps=400)
