"""Whether a long run stays as quick as it began: memory and time of an epoch, files, reading.

    OMP_NUM_THREADS=1 python benchmarks/long_runs.py [FOLDER]

Two runs: 10,000 epochs of a small network trained under `gradflow.Tracer`, and 10^8 values of 1,000
layers written by `RunWriter`. Each is written in a process of its own, and read in another.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import gradflow
from gradflow.runs.schema import TABLES
from gradflow.runs.writer import RunWriter

EPOCHS = 10_000
STEPS_PER_EPOCH = 2
LAYERS = 1_000


def train(folder: Path) -> tuple[list[float], list[float]]:
    """Train a network of two linear layers; seconds and resident MB after each epoch."""
    import torch  # noqa: PLC0415 - the other run needs none
    from torch import nn  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs, targets = torch.randn(32, 8), torch.randint(0, 2, (32,))
    seconds, memory = [], []
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(EPOCHS):
            start = time.perf_counter()
            for _ in range(STEPS_PER_EPOCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
            tracer.end_epoch(train_loss=float(loss.detach()))
            seconds.append(time.perf_counter() - start)
            memory.append(_resident_megabytes())
    return seconds, memory


def write_wide(folder: Path) -> tuple[list[float], list[float]]:
    """Write ten statistics of each layer and epoch; seconds and resident MB after each epoch."""
    generator = np.random.default_rng(0)
    names = [f"stages.{i // 10}.blocks.{i % 10}.conv" for i in range(LAYERS)]
    writer = RunWriter(folder, {"network": "wide"})
    seconds, memory = [], []
    for epoch in range(1, EPOCHS + 1):
        columns = _statistics(epoch, names, generator)
        start = time.perf_counter()
        writer.append("gradients", columns, epoch - 1, epoch - 1)
        writer.append("epochs", {"epoch": [epoch], "step": [epoch - 1]}, epoch - 1, epoch - 1)
        seconds.append(time.perf_counter() - start)
        memory.append(_resident_megabytes())
    writer.close("complete")
    return seconds, memory


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
    """Seconds to open the run and read its epochs, and one layer's history; its rows."""
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


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _row(name: str, folder: Path, written: tuple[list[float], list[float]], layer: str) -> str:
    seconds, memory = written
    tenth = EPOCHS // 10
    with _processes() as pool:
        opening, history, rows = pool.apply(read, (folder, layer))
    first, last = (statistics.median(part) for part in (seconds[:tenth], seconds[-tenth:]))
    means = [statistics.mean(part) for part in (seconds[:tenth], seconds[-tenth:])]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return (
        f"| {name} | {1e3 * first:.1f} | {1e3 * last:.1f} | {last / first:.2f} "
        f"| {1e3 * means[0]:.1f} | {1e3 * means[1]:.1f} | {max(seconds):.2f} "
        f"| {statistics.median(memory[:tenth]):.0f} | {statistics.median(memory[-tenth:]):.0f} "
        f"| {max(memory):.0f} | {len(files)} | {sum(p.stat().st_size for p in files) / 1e6:.0f} "
        f"| {opening:.2f} | {history:.2f} ({rows:,} rows) |"
    )


def _processes() -> Any:
    return multiprocessing.get_context("spawn").Pool(1)


def main(parent: Path) -> None:
    """Write both runs into `parent` and print a row of figures for each."""
    print(
        "| run | median ms an epoch, first tenth | last | ratio | mean, first tenth | last "
        "| longest s | MB of memory, first tenth | last | most | files | MB on disk "
        "| open s | layer's history s |"
    )
    print("|---" * 14 + "|")
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
