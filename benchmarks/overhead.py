"""What tracing costs: traced over untraced step time, paired and interleaved in one process.

    python benchmarks/overhead.py --networks plain34 resnet34 --size 32 --every 1 2

Two copies of a network train on the same batches, one traced and one not, in an order drawn anew
for every pair of steps; the losses are asserted to be identical. Only ratios are reported: the
median over the pairs, and its 95 % interval from the order statistics of the binomial distribution.
A schedule of every k steps is timed over k steps at a time. The load of the machine and the speed
at which it reads memory are measured in the same run.
"""

import copy
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow
from gradflow.experiment import choose_device
from gradflow.models import build


@dataclass(frozen=True)
class Options:
    """What to time."""

    networks: tuple[str, ...] = ("plain34", "resnet34")
    """Networks of gradflow.models."""
    size: int = 32
    """Side of the images, in pixels."""
    batch: int = 24
    """Images in a step."""
    every: tuple[int, ...] = (1, 2)
    """Schedules: steps from one recorded step to the next."""
    histograms: bool = False
    """Record histograms of magnitudes as well."""
    pairs: int = 30
    """Timed pairs a schedule."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


class Trainer:
    """A network with its optimizer, trained a step at a time."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=5e-4)

    def time(self, batches: list[tuple[Tensor, Tensor]]) -> tuple[float, list[Tensor]]:
        """Seconds for a step on each of `batches`, and the losses."""
        device = batches[0][0].device
        _synchronize(device)
        start = time.perf_counter()
        losses = []
        for x, y in batches:
            self.optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        _synchronize(device)
        return time.perf_counter() - start, losses


def measure(network: str, every: int, options: Options, device: torch.device) -> list[float]:
    """The ratios traced / untraced of all pairs, warm-up left out."""
    model = build(network, classes=5, seed=0).to(device)
    plain, traced = Trainer(copy.deepcopy(model)), Trainer(model)
    generator = torch.Generator().manual_seed(0)
    order = random.Random(0)
    ratios = []
    with (
        tempfile.TemporaryDirectory() as folder,
        gradflow.Tracer(
            traced.model,
            Path(folder) / "run",
            optimizer=traced.optimizer,
            schedule=every,
            histograms=options.histograms,
        ),
    ):
        for pair in range(options.pairs + 3):
            batches = [_batch(options, generator, device) for _ in range(every)]
            seconds, losses = {}, {}
            for trainer in order.sample([plain, traced], 2):
                seconds[trainer], losses[trainer] = trainer.time(batches)
            if device.type == "cpu" and not all(
                torch.equal(mine, theirs)
                for mine, theirs in zip(losses[plain], losses[traced], strict=True)
            ):
                raise AssertionError(f"the losses of {network} differ with the tracer")
            if pair >= 3:
                ratios.append(seconds[traced] / seconds[plain])
    return sorted(ratios)


def median_interval(ordered: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median, from the order statistics."""
    rank = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[max(rank - 1, 0)], ordered[min(len(ordered) - rank, len(ordered) - 1)]


def main(options: Options) -> None:
    """Print one line a network and schedule, as a Markdown table."""
    device = choose_device(options.device)
    print(f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads")
    print(f"histograms {'on' if options.histograms else 'off'}; {_surroundings(device)}")
    print("| network | images | batch | recorded | traced / untraced | 95 % interval | pairs |")
    print("|---|---|---|---|---|---|---|")
    for network in options.networks:
        for every in options.every:
            ratios = measure(network, every, options, device)
            low, high = median_interval(ratios)
            print(
                f"| {network} | {options.size}x{options.size} | {options.batch} "
                f"| 1 step in {every} | {statistics.median(ratios):.2f} "
                f"| {low:.2f} to {high:.2f} | {len(ratios)} |",
                flush=True,
            )


def _surroundings(device: torch.device) -> str:
    """The load of the machine, and how fast a large tensor is read."""
    x = torch.ones(32 * 2**20, device=device)
    seconds = []
    for _ in range(10):
        _synchronize(device)
        start = time.perf_counter()
        torch.linalg.vector_norm(x)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    speed = x.numel() * x.element_size() / statistics.median(seconds) / 1e9
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if os.name == "posix" else ""
    return f"memory read at {speed:.1f} GB/s; {load}"


def _batch(
    options: Options, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    shape = (options.batch, 3, options.size, options.size)
    x = torch.randn(shape, generator=generator)
    y = torch.randint(0, 5, (options.batch,), generator=generator)
    return x.to(device), y.to(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Options))
