"""Measures what stale batch-norm statistics cost, by how far the health check finds them off.

    OMP_NUM_THREADS=1 python benchmarks/stale_statistics.py

Draws small networks with batch norms, trains each for three short epochs on scikit-learn's digits
under `gradflow.Tracer`, and at each epoch's end compares the accuracy on other digits with that of
the same weights and re-estimated statistics.
"""

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
import tyro
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions.normalization import stale_answer
from analyses.health.readings import Reading
from analyses.statistics.proportions import wilson_interval

TRAINING, EPOCH, EPOCHS, CLASSES = 1200, 600, 3, 10
BANDS = (0, 0.1, 0.5, 1, float("inf"))
LOST = 0.02  # of the accuracy


@dataclass(frozen=True)
class Options:
    """How many networks to draw, and from which seed."""

    seed: int = 2025
    """Of everything that is drawn."""
    networks: int = 60
    """Networks to train."""


class Block(nn.Module):
    """Two convolutions with batch norms, with a skip around them or without."""

    def __init__(self, channels: int, momentum: float, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(channels, momentum=momentum), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, 8, 8] to the same shape."""
        return F.relu(x + self.body(x) if self.skip else self.body(x))


def network(draw: random.Random) -> nn.Module:
    """A convolutional network or a perceptron of 1 to 8 blocks."""
    momentum = draw.choice((0.1, 0.1, 0.1, 0.3, 0.03, 0.01, 0.001))
    depth, width = draw.choice((1, 2, 4, 8)), draw.choice((8, 12))
    if draw.random() < 2 / 3:
        skip = draw.random() < 0.5
        first = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width, momentum=momentum)]
        blocks = [Block(width, momentum, skip=skip) for _ in range(depth)]
        pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, CLASSES)]
        return nn.Sequential(*first, nn.ReLU(), *blocks, *pool)
    layers: list[nn.Module] = [nn.Flatten()]
    for size in (64, *[48] * (depth - 1)):
        layers += [nn.Linear(size, 48), nn.BatchNorm1d(48, momentum=momentum), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, CLASSES))


def epochs(draw: random.Random, images: Tensor, labels: Tensor) -> Iterator[tuple[float, float]]:
    """Train one network; yield, for each epoch, the distance found and the accuracy lost."""
    model, rate = network(draw), 10 ** draw.uniform(-3, -0.3)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), rate / 30)
    if draw.random() < 0.5:
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    batch = draw.choice((16, 32, 64))
    for _ in range(EPOCHS):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            with gradflow.Tracer(model.train(), run, optimizer=optimizer, schedule=4) as tracer:
                for chosen in torch.randperm(TRAINING)[:EPOCH].split(batch):
                    optimizer.zero_grad()
                    F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                    optimizer.step()
                tracer.end_epoch()
            found = stale_answer(gradflow.open_run(run), 0.5)
        if not isinstance(found, Reading) or found.value is None:
            continue
        training = [(images[i], labels[i]) for i in torch.arange(TRAINING).split(64)]
        validation = [(images[TRAINING:], labels[TRAINING:])]
        both = gradflow.evaluate_both(model, training, validation)
        yield found.value, both.re_estimated - both.running


def main(options: Options) -> None:
    """Print how often accuracy was lost, by the distance that was found."""
    draw = random.Random(options.seed)
    torch.manual_seed(options.seed)
    pixels, targets = load_digits(return_X_y=True)
    order = torch.randperm(len(targets))
    images = torch.tensor(pixels, dtype=torch.float32)[order].reshape(-1, 1, 8, 8) / 8 - 1
    labels = torch.tensor(targets)[order]
    rows = [row for _ in range(options.networks) for row in epochs(draw, images, labels)]
    frame = pd.DataFrame(rows, columns=["distance", "lost"])
    print("| distance | epochs | lost 2 points or more | 95 % interval | median loss, points |")
    print("|---|---|---|---|---|")
    for low, high in pairwise(BANDS):
        lost = frame.loc[frame["distance"].between(low, high, inclusive="left"), "lost"]
        count = int((lost >= LOST).sum())
        ends = wilson_interval(count, len(lost))
        print(
            f"| {low} to {high} | {len(lost)} | {count / max(len(lost), 1):.0%} | "
            f"{ends[0]:.0%} to {ends[1]:.0%} | {100 * lost.median():.1f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
