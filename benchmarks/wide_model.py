"""Measures tracing and reports of a language model of some 3,000 parameter tensors.

    OMP_NUM_THREADS=1 python benchmarks/wide_model.py [--blocks 250] [FOLDER]

Trains it for 30 steps in three epochs, untraced and traced with histograms, each in a process of
its own; then makes each format of the report in a process of its own. Seconds are those of the
processor, on which other work on the machine has the least influence, unless said otherwise. Needs
POSIX, to measure one process, and `pdfinfo` to count pages.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

FORMATS = ("html", "pdf", "md", "json")
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss there, KiB elsewhere


@dataclass(frozen=True)
class Cost:
    """The cost of a command, peak resident memory in MB, and what it printed."""

    processor: float
    clock: float
    memory: float
    text: str


def cost_of(command: list[str]) -> Cost:
    """Run `command` and measure it.

    Raises `SystemExit` with what it printed if it fails.
    """
    with tempfile.TemporaryFile() as printed:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=printed)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read().decode()
    if process.returncode:
        sys.exit(text)
    return Cost(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss * UNIT / 1e6, text)


def train_here(blocks: int, folder: str) -> None:
    """Train in this process, traced if `folder` is given; print the processor seconds of steps."""
    import torch  # noqa: PLC0415 - the process that measures needs none
    from language_model import Size, train  # noqa: PLC0415

    torch.set_num_threads(1)
    times = [time.process_time()]
    model = train(
        Size(blocks=blocks),
        Path(folder) if folder else None,
        after_step=lambda: times.append(time.process_time()),
    )
    print(len(list(model.named_parameters())), len(list(model.modules())))
    print(*(f"{end - start:.4f}" for start, end in pairwise(times)))


def main(blocks: int, parent: Path) -> None:
    """Print a table of the training, and one of the reports."""
    traced, medians = parent / "traced", {}
    shutil.rmtree(traced, ignore_errors=True)
    print("| training | s a step, median | s in all | s on the clock | peak MB |")
    print("|---|---|---|---|---|")
    for name, folder in (("untraced", ""), ("traced", str(traced))):
        command = [sys.executable, __file__, "--blocks", str(blocks), "--train-into", folder]
        cost = cost_of(command)
        counts, steps = cost.text.splitlines()[-2:]
        medians[name] = statistics.median(map(float, steps.split()))
        times = f"{medians[name]:.2f} | {cost.processor:.1f} | {cost.clock:.1f}"
        print(f"| {name} | {times} | {cost.memory:.0f} |", flush=True)
    print(f"\nratio {medians['traced'] / medians['untraced']:.2f}; parameters, modules: {counts}")
    files = [path for path in traced.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"run folder: {size:.1f} MB in {len(files)} files\n")
    print("| format | s | s on the clock | peak MB | MB | pages |")
    print("|---|---|---|---|---|---|")
    for one in FORMATS:
        command = [sys.executable, "-m", "gradflow.report", str(traced), "--format", one]
        cost = cost_of(command)
        path = traced / f"report.{one}"
        written = path.stat().st_size / 1e6
        pages = pages_of(path) if one == "pdf" else ""
        times = f"{cost.processor:.1f} | {cost.clock:.1f}"
        print(f"| {one} | {times} | {cost.memory:.0f} | {written:.2f} | {pages} |", flush=True)


def pages_of(path: Path) -> str:
    """The number of pages that `pdfinfo` counts, or nothing without it."""
    if shutil.which("pdfinfo") is None:
        return ""
    text = subprocess.run(["pdfinfo", path], capture_output=True, text=True, check=True).stdout
    return re.search(r"Pages:\s+(\d+)", text)[1]  # type: ignore[index]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--blocks", type=int, default=250)
    parser.add_argument("--train-into", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train_into is not None:
        train_here(given.blocks, given.train_into)
    elif given.folder:
        main(given.blocks, given.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(given.blocks, Path(temporary))
