"""Times two trainers in pairs, on the same batches, in a random order for each pair."""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow

WARM_UP = 3
"""Pairs that are run first and not counted."""


class Source(Protocol):
    """Draws batches."""

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The inputs and targets of a step."""


@dataclass(frozen=True)
class Letters:
    """Random letters and those that follow them, the same in every run."""

    length: int
    """Letters in a text."""
    count: int
    """Texts in a batch."""
    kinds: int
    """Different letters."""
    device: torch.device

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Letters and the following ones, both of shape [count, length]."""
        shape = (self.count, self.length + 1)
        letters = torch.randint(0, self.kinds, shape, generator=generator).to(self.device)
        return letters[:, :-1], letters[:, 1:]


@dataclass(frozen=True)
class Batches:
    """Random images and labels, the same in every run."""

    size: int
    """Side of the images, in pixels."""
    count: int
    """Images in a batch."""
    device: torch.device

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images of shape [count, 3, size, size] and labels of shape [count], five classes."""
        x = torch.randn((self.count, 3, self.size, self.size), generator=generator)
        y = torch.randint(0, 5, (self.count,), generator=generator)
        return x.to(self.device), y.to(self.device)


class Trainer:
    """A network with its optimizer, trained one step at a time.

    `before` runs at the start of a step, `between` after the backward pass and `after` at the end
    of the step, both with the loss. The timing includes them: they are the calls that some tools
    require in the training loop.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=5e-4)
        self.before: Callable[[], None] = lambda: None
        self.between: Callable[[Tensor], None] = lambda _: None
        self.after: Callable[[Tensor], None] = lambda _: None

    def time(self, batches: list[tuple[Tensor, Tensor]]) -> tuple[float, list[Tensor]]:
        """Seconds for a step on each of `batches`, and the losses."""
        device = batches[0][0].device
        synchronize(device)
        start = time.perf_counter()
        losses = []
        for x, y in batches:
            self.before()
            self.optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.between(loss.detach())
            self.optimizer.step()
            self.after(loss.detach())
            losses.append(loss.detach())
        synchronize(device)
        return time.perf_counter() - start, losses


@contextmanager
def traced(trainer: Trainer, **options: Any) -> Iterator[gradflow.Tracer]:
    """Trace `trainer` into a temporary folder; `options` are the tracer's."""
    with (
        tempfile.TemporaryDirectory() as folder,
        gradflow.Tracer(
            trainer.model, Path(folder) / "run", optimizer=trainer.optimizer, **options
        ) as tracer,
    ):
        yield tracer


def paired_ratios(
    traced: Trainer, plain: Trainer, batches: Source, pairs: int, every: int = 1
) -> tuple[list[float], bool]:
    """The sorted ratios traced / plain of `pairs` pairs of `every` steps, without the warm-up.

    The second value says whether all losses of both, warm-up included, were equal bit for bit.
    """
    generator = torch.Generator().manual_seed(0)
    order = random.Random(0)
    ratios, identical = [], True
    for pair in range(pairs + WARM_UP):
        drawn = [batches.draw(generator) for _ in range(every)]
        seconds, losses = {}, {}
        for trainer in order.sample([plain, traced], 2):
            seconds[trainer], losses[trainer] = trainer.time(drawn)
        identical &= all(map(torch.equal, losses[plain], losses[traced]))
        if pair >= WARM_UP:
            ratios.append(seconds[traced] / seconds[plain])
    return sorted(ratios), identical


def median_interval(ordered: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median, from the order statistics."""
    rank = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[max(rank - 1, 0)], ordered[min(len(ordered) - rank, len(ordered) - 1)]


def surroundings(device: torch.device) -> str:
    """The load of the machine, and the speed of reading a large tensor."""
    x = torch.ones(32 * 2**20, device=device)
    seconds = []
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        torch.linalg.vector_norm(x)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    speed = x.numel() * x.element_size() / statistics.median(seconds) / 1e9
    return f"memory read at {speed:.1f} GB/s; {load()}"


def load() -> str:
    """The load average of the last minute, if the system provides it."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if os.name == "posix" else ""


def synchronize(device: torch.device) -> None:
    """Wait for all queued work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
