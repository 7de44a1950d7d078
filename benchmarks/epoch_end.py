"""Measures what the end of an epoch costs a traced model of many modules.

    OMP_NUM_THREADS=1 python benchmarks/epoch_end.py [--blocks 768] [--steps 2]

The model is a stack of pre-norm residual blocks of tiny tensors, six modules each. Every step is
recorded, with histograms. Shown are the seconds of `end_epoch`, by processor and by the clock, and
those in which the numbers of a step are moved from the device to columns. The first epoch also
loads what writing needs.
"""

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradflow
from gradflow.hooks.store import RecordStore

WIDTH = 8


class Block(nn.Module):
    """Two residual additions, each behind a normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        x = x + self.mix(self.norm1(x))
        out: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return out


class Clock:
    """Adds up the seconds spent within it, by processor and by the clock."""

    def __init__(self) -> None:
        self.processor, self.wall = 0.0, 0.0

    def __enter__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        processor, wall = self._start
        self.processor += time.process_time() - processor
        self.wall += time.perf_counter() - wall


def main(blocks: int, steps: int, epochs: int) -> None:
    """Print a Markdown table with one row for each epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), *(Block() for _ in range(blocks)), nn.Linear(WIDTH, 4)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    original = RecordStore.transfer
    transferring = Clock()

    def timed(store: RecordStore) -> None:
        with transferring:
            original(store)

    print(f"{len(list(model.modules()))} modules, {steps} recorded steps an epoch\n")
    print("| epoch | end of the epoch, processor | clock | columns of a step, processor |")
    print("|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(RecordStore, "transfer", timed),
        gradflow.Tracer(
            model, Path(folder) / "run", optimizer=optimizer, histograms=True
        ) as tracer,
    ):
        for epoch in range(1, epochs + 1):
            transferring.processor = 0.0
            for _ in range(steps):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(torch.randn(4, WIDTH)), torch.arange(4))
                loss.backward()
                optimizer.step()
            ending = Clock()
            with ending:
                tracer.end_epoch(train_loss=loss.item())
            columns = transferring.processor / steps
            print(
                f"| {epoch} | {ending.processor:.3f} s | {ending.wall:.3f} s | {columns:.3f} s |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=768)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    main(given.blocks, given.steps, given.epochs)
