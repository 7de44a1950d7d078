"""Measures time and memory of a report as HTML and PDF, on an experiment and an enlarged copy.

    OMP_NUM_THREADS=2 python benchmarks/report_speed.py runs/EXPERIMENT

The enlarged copy (see analyses_speed.py) has five seeds and fifty epochs of each network. The
command makes each report in its own process, on a copy of the experiment. Seconds are wall-clock
seconds and include the start of Python. Needs POSIX, to measure the cost of one process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from analyses_speed import EPOCHS, SEEDS, enlarge

FORMATS = ("html", "pdf")
MOST_MEMORY = 1.5  # GiB


@dataclass(frozen=True)
class Cost:
    """The cost of the command: wall-clock seconds, core seconds, peak resident memory in GiB."""

    seconds: float
    processor: float
    memory: float


def cost_of(folder: Path) -> Cost:
    """Write the reports of `folder` with the command, and measure its cost.

    Raises `SystemExit` with the output of the command if it fails.
    """
    command = [sys.executable, "-m", "gradflow.report", str(folder), "--format", ",".join(FORMATS)]
    with tempfile.TemporaryFile() as printed:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=printed)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            sys.exit(printed.read().decode())
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    memory = usage.ru_maxrss * unit / 2**30
    return Cost(seconds, usage.ru_utime + usage.ru_stime, memory)


def main(source: Path) -> None:
    """Print a line for the experiment and one for the enlarged copy, with the targets."""
    print("| experiment | seconds | aim | seconds of processor | peak memory | aim | files |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        recorded, large = Path(temporary) / source.resolve().name, Path(temporary) / "large"
        shutil.copytree(source, recorded)
        enlarge(source, large)
        for name, folder, aim in (
            ("as recorded", recorded, 7),
            (f"{SEEDS} seeds, {EPOCHS} epochs", large, 15),
        ):
            cost = cost_of(folder)
            files = ", ".join(
                f"{one} {(folder / f'report.{one}').stat().st_size / 1e6:.1f} MB" for one in FORMATS
            )
            print(
                f"| {name} | {cost.seconds:.1f} s | {aim} s | {cost.processor:.1f} s "
                f"| {cost.memory:.2f} GiB | {MOST_MEMORY} GiB | {files} |",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
