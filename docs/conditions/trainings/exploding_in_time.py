"""A recurrence without a nonlinearity multiplies the gradient with its weights in each step."""

from pathlib import Path

import torch
from small_training import train
from torch import Tensor, nn


class Linear(nn.Module):
    """Reads a sequence by a linear recurrence; recurrent weights are orthogonal times `gain`."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.embedding, self.step = nn.Embedding(4, 16), nn.Linear(32, 32)
        self.enter, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
        with torch.no_grad():
            nn.init.orthogonal_(self.step.weight)
            self.step.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, T] to [N, 4]."""
        embedded = self.enter(self.embedding(x))
        state = embedded[:, 0]
        for place in range(1, x.shape[1]):
            state = self.step(state) + embedded[:, place]
        outputs: Tensor = self.head(state)
        return outputs


def trained(folder: Path, gain: float) -> Path:
    """Train with sequences of 48."""
    sequences = torch.randint(4, (512, 48), generator=torch.Generator().manual_seed(0))
    model = Linear(gain)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    data = sequences, sequences[:, -1]
    return train(model, folder, optimizer=optimizer, data=data, batch=32, steps=90)


def ill(folder: Path) -> Path:
    """With recurrent weights times 1.4."""
    return trained(folder, 1.4)


def mended(folder: Path) -> Path:
    """With orthogonal recurrent weights."""
    return trained(folder, 1.0)
