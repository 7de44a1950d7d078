"""Checks that a long run does not slow down: memory and time per epoch, files, reading.

    OMP_NUM_THREADS=1 python benchmarks/long_runs.py [FOLDER]

Two runs: 10,000 epochs of a small network trained under `gradflow.Tracer`, and 10^8 values of 1,000
layers written by `RunWriter`. Each run is written in one process and read in another. Processor
time shows whether an epoch takes longer at the end. Other work on the machine changes this time by
tens of percent. So a fixed piece of work is measured after every epoch, and the second ratio is in
units of this work. The table also has seconds of wall-clock time.

FOLDER should be on a file system with a journal. Without one, ext4 checks all recently deleted
files each time it makes a new file, and becomes slower after merges have deleted files.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import gradflow
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.run import RunWriter

EPOCHS = 10_000
STEPS_PER_EPOCH = 2
LAYERS = 1_000


@dataclass
class Figures:
    """For each epoch: processor seconds, wall-clock seconds, and resident MB at its end.

    `fixed` has the processor seconds of a fixed piece of work done after the epoch.
    """

    processor: list[float] = field(default_factory=list)
    fixed: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Measure an epoch that runs within this context."""
        clock, processor = time.perf_counter(), time.process_time()
        yield
        self.clock.append(time.perf_counter() - clock)
        self.processor.append(time.process_time() - processor)
        self.fixed.append(_fixed_work())
        self.memory.append(_resident_megabytes())


def train(folder: Path) -> Figures:
    """Train a network of two linear layers."""
    import torch  # noqa: PLC0415 - the other run needs none
    from torch import nn  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs, targets = torch.randn(32, 8), torch.randint(0, 2, (32,))
    figures = Figures()
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(EPOCHS):
            with figures.epoch():
                for _ in range(STEPS_PER_EPOCH):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(inputs), targets)
                    loss.backward()
                    optimizer.step()
                tracer.end_epoch(train_loss=float(loss.detach()))
    return figures


def write_wide(folder: Path) -> Figures:
    """Write ten statistics of each layer and epoch."""
    generator = np.random.default_rng(0)
    names = [f"stages.{i // 10}.blocks.{i % 10}.conv" for i in range(LAYERS)]
    writer = RunWriter(folder, {"network": "wide"})
    figures = Figures()
    for epoch in range(1, EPOCHS + 1):
        columns = _statistics(epoch, names, generator)
        with figures.epoch():
            writer.append("gradients", columns, epoch - 1, epoch - 1)
            row = {"epoch": [epoch], "step": [epoch - 1]}
            writer.append("epochs", row, epoch - 1, epoch - 1)
    writer.close("complete")
    return figures


def _statistics(epoch: int, names: list[str], generator: np.random.Generator) -> dict[str, Any]:
    rows = len(names)
    known = {"epoch": [epoch] * rows, "step": [epoch - 1] * rows, "layer": names}
    for quantity in TABLES["gradients"].columns:
        if quantity.name not in known:
            whole = quantity.dtype.startswith("int")
            values = generator.integers(0, 9, rows) if whole else generator.standard_normal(rows)
            known[quantity.name] = values.astype(quantity.dtype)
    return known


def read(folder: Path, layer: str) -> tuple[float, float, int]:
    """Seconds to open the run and read its epochs, and to read one layer's history; its rows."""
    start = time.perf_counter()
    run = gradflow.open_run(folder)
    epochs = run.epochs
    opened = time.perf_counter()
    history = run.layer_history("gradients", layer, ["norm"])
    end = time.perf_counter()
    if not (
        list(epochs["epoch"]) == list(range(1, EPOCHS + 1))
        and history["step"].is_monotonic_increasing
    ):
        raise SystemExit(f"{folder} does not hold what was written")
    return opened - start, end - opened, len(history)


_SAMPLE = pa.table({f"column{i}": np.linspace(0, i, 6) for i in range(15)})


def _fixed_work() -> float:
    """Processor seconds of writing a small table to memory a few times."""
    start = time.process_time()
    for _ in range(4):
        pq.write_table(_SAMPLE, pa.BufferOutputStream(), compression="zstd")
    return time.process_time() - start


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _row(name: str, folder: Path, figures: Figures, layer: str) -> str:
    with _processes() as pool:
        opening, history, rows = pool.apply(read, (folder, layer))
    files = [path for path in folder.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    medians, means = (_tenths(figures.processor, by) for by in (statistics.median, statistics.mean))
    units = [a / b for a, b in zip(figures.processor, figures.fixed, strict=True)]
    in_units = _tenths(units, statistics.median)
    clock, longest = _tenths(figures.clock, statistics.mean), max(figures.clock)
    memory = _tenths(figures.memory, statistics.median)
    cells = [
        name,
        *(f"{1e3 * value:.1f}" for value in medians),
        f"{medians[1] / medians[0]:.2f}",
        f"{in_units[1] / in_units[0]:.2f}",
        *(f"{1e3 * value:.1f}" for value in (*means, *clock)),
        f"{longest:.1f} ({figures.clock.index(longest) + 1})",
        *(f"{value:.0f}" for value in (*memory, max(figures.memory))),
        str(len(files)),
        f"{megabytes:.0f}",
        f"{opening:.2f}",
        f"{history:.2f} ({rows:,} rows)",
    ]
    return f"| {' | '.join(cells)} |"


def _tenths(values: list[float], by: Callable[[list[float]], float]) -> tuple[float, float]:
    """The value of `by` for the first tenth of `values`, and for the last tenth."""
    tenth = len(values) // 10
    return by(values[:tenth]), by(values[-tenth:])


def _processes() -> Any:
    return multiprocessing.get_context("spawn").Pool(1)


def main(parent: Path) -> None:
    """Write both runs into `parent` and print a row of figures for each."""
    headings = (
        "run",
        *("median processor ms an epoch, first tenth", "last", "ratio"),
        "ratio in units of fixed work",
        *("mean processor ms, first", "last", "mean ms on the clock, first", "last"),
        "longest s (its epoch)",
        *("MB of memory, first", "last", "most"),
        *("files", "MB on disk", "open s", "a layer's history s"),
    )
    print(f"| {' | '.join(headings)} |")
    print("|---" * len(headings) + "|")
    for name, write, layer in (
        ("small", train, "0"),
        ("wide", write_wide, "stages.3.blocks.7.conv"),
    ):
        folder = parent / name
        with _processes() as pool:
            written = pool.apply(write, (folder,))
        print(_row(name, folder, written, layer), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
