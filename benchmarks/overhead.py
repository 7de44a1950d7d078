"""Measures the cost of tracing: the ratio of traced to untraced step times, in paired steps.

    python benchmarks/overhead.py --networks plain34 resnet34 --size 32 --every 1 2

Two copies of a network train on the same batches in one process, one traced and one not. Their
order is drawn anew for every pair of steps; their losses must be identical, unless compiled. Only
ratios are shown: the median over the pairs, and its 95 % interval from the order statistics of the
binomial distribution. A schedule of every k steps is timed over k steps at a time. The load of
the machine and its memory speed are measured in the same run. `--memory` adds the ratio of peak
resident memory (on CUDA, of allocated memory), traced to untraced, each in its own process.
`--writing` adds the share of the time of an epoch of 60 steps that is spent on writing its tables.
`--in-graph` compares compiled training with statistics in its graph to compiled training without.
"""

import copy
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import tyro
from pairing import Batches, Trainer, median_interval, paired_ratios, surroundings, traced

from gradflow.models import build
from gradflow.runs.writing.run import RunWriter
from gradflow.training.experiment import choose_device

EPOCH = 60
"""Steps of an epoch of the default experiment."""


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
    """Schedules: steps from one recorded step to the next; 0 records the first step alone and
    times those that are not recorded."""
    compiled: bool = False
    """Compile both networks; recorded steps of the traced one then run uncompiled."""
    in_graph: bool = False
    """Compile both networks, and take the statistics within the traced one's graph: its recorded
    steps are compiled too."""
    histograms: bool = False
    """Record histograms of magnitudes as well."""
    pairs: int = 30
    """Timed pairs a schedule."""
    memory: bool = False
    """Measure peaks of memory as well (not on Windows)."""
    writing: bool = False
    """Measure the share of the time that writing takes as well."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def options_of(every: int, options: Options) -> dict[str, Any]:
    """The options of the tracer."""
    schedule = every or (lambda step: step == 0)
    in_graph = {"compiled": "in-graph"} if options.in_graph else {}
    return {"schedule": schedule, "histograms": options.histograms, **in_graph}


def measure(network: str, every: int, options: Options, device: torch.device) -> list[float]:
    """The sorted ratios traced / untraced of all pairs, without the warm-up."""
    model = build(network, classes=5, seed=0).to(device)
    plain, watched = Trainer(copy.deepcopy(model)), Trainer(model)
    batches = Batches(options.size, options.batch, device)
    with traced(watched, **options_of(every, options)):
        # After the tracer's hooks: equal code is not compiled anew for them.
        if options.compiled or options.in_graph:
            plain.model.compile()
            watched.model.compile()
        ratios, identical = paired_ratios(watched, plain, batches, options.pairs, every or 1)
    # Compiled kernels round differently from the uncompiled steps that are recorded.
    if device.type == "cpu" and not identical and not (options.compiled or options.in_graph):
        raise AssertionError(f"the losses of {network} differ with the tracer")
    return ratios


def memory_ratio(network: str, every: int, options: Options) -> float:
    """Peak memory traced / untraced, each measured in a fresh process.

    Call it while this process is small: on Linux the peak of a new process includes the memory of
    the process that starts it.
    """
    peaks = []
    for trace in (True, False):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            peaks.append(pool.submit(_peak_memory, network, every, options, trace).result())
    return peaks[0] / peaks[1]


def _peak_memory(network: str, every: int, options: Options, trace: bool) -> int:
    """Peak memory of this process after a few steps: resident, in the system's unit; on CUDA bytes.

    Raises RuntimeError if the training did not exceed the peak at the start of the process.
    """
    import resource  # noqa: PLC0415  (not on Windows)

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    device = choose_device(options.device)
    trainer = Trainer(build(network, classes=5, seed=0).to(device))
    batches = Batches(options.size, options.batch, device)
    generator = torch.Generator().manual_seed(0)
    with traced(trainer, **options_of(every, options)) if trace else nullcontext():
        for _ in range(max(5, 2 * every)):
            trainer.time([batches.draw(generator)])
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak <= start:
        raise RuntimeError(f"the peak of {network} is hidden by that of the process before it")
    return peak


def writing_share(network: str, every: int, options: Options, device: torch.device) -> float:
    """The share of time spent on encoding tables, writing them and flushing them to the disk."""
    trainer = Trainer(build(network, classes=5, seed=0).to(device))
    batches = Batches(options.size, options.batch, device)
    generator = torch.Generator().manual_seed(0)
    writing = 0.0
    append = RunWriter.append_all

    def timed(writer: RunWriter, *arguments: Any) -> None:
        nonlocal writing
        start = time.perf_counter()
        append(writer, *arguments)
        writing += time.perf_counter() - start

    tracing = traced(trainer, **options_of(every, options))
    with tracing as tracer, patch.object(RunWriter, "append_all", timed):
        trainer.time([batches.draw(generator)])
        start = time.perf_counter()
        for _ in range(EPOCH):
            trainer.time([batches.draw(generator)])
        tracer.end_epoch()
        return writing / (time.perf_counter() - start)


def main(options: Options) -> None:
    """Print a Markdown table with one row for each network and schedule."""
    device = choose_device(options.device)
    cases = [(network, every) for network in options.networks for every in options.every]
    memory = {case: f"{memory_ratio(*case, options):.2f}" for case in cases if options.memory}
    print(f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads")
    print(f"histograms {'on' if options.histograms else 'off'}; {surroundings(device)}")
    print(
        "| network | images | batch | recorded | traced / untraced | 95 % interval | pairs "
        "| peak memory | writing |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for network, every in cases:
        ratios = measure(network, every, options, device)
        low, high = median_interval(ratios)
        writing = "not measured"
        if options.writing:
            writing = f"{writing_share(network, every, options, device):.2%}"
        print(
            f"| {network} | {options.size}x{options.size} | {options.batch} "
            f"| {f'1 step in {every}' if every else 'none'} | {statistics.median(ratios):.2f} "
            f"| {low:.2f} to {high:.2f} | {len(ratios)} "
            f"| {memory.get((network, every), 'not measured')} | {writing} |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
