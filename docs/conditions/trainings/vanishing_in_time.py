"""A vanilla RNN reads 64 steps, and its recurrent weights are too small to remember the first."""

from pathlib import Path

import torch
from small_training import train
from torch import Tensor, nn


class Remembers(nn.Module):
    """Reads a sequence and tells what its first element was; recurrent weights times `gain`."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 16)
        self.rnn, self.head = nn.RNN(16, 32, batch_first=True), nn.Linear(32, 4)
        with torch.no_grad():
            nn.init.orthogonal_(self.rnn.weight_hh_l0)
            self.rnn.weight_hh_l0.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, T] to [N, 4]."""
        states, _ = self.rnn(self.embedding(x))
        outputs: Tensor = self.head(states[:, -1])
        return outputs


def trained(folder: Path, gain: float, length: int) -> Path:
    """Train with sequences of this length."""
    sequences = torch.randint(4, (512, length), generator=torch.Generator().manual_seed(0))
    model = Remembers(gain)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    return train(model, folder, optimizer=optimizer, data=(sequences, sequences[:, 0]), batch=32)


def ill(folder: Path) -> Path:
    """With recurrent weights times 0.3."""
    return trained(folder, 0.3, 64)


def mended(folder: Path) -> Path:
    """With orthogonal recurrent weights, and sequences of 8."""
    return trained(folder, 1.0, 8)
