"""How long a report takes as HTML and PDF, and how much memory: of an experiment, and one enlarged.

    OMP_NUM_THREADS=2 python benchmarks/report_speed.py runs/EXPERIMENT

The enlarged one (see analyses_speed.py) has five seeds and fifty epochs of each network. Each
report is made by the command, in a process of its own, on a copy of the experiment; seconds are
those that a reader waits, with the start of Python. POSIX alone tells what one process took.
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
    """What the command took: seconds of waiting, of all cores, and peak resident memory in GiB."""

    seconds: float
    processor: float
    memory: float


def cost_of(folder: Path) -> Cost:
    """Write the reports of `folder` with the command, and measure it.

    Raises `SystemExit` with what it printed where the command fails.
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
    """Print a line for the experiment and one for the enlarged one, beside the aims."""
    print("| experiment | seconds | aim | seconds of processor | peak memory | aim | files |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        recorded, large = Path(temporary) / source.resolve().name, Path(temporary) / "large"
        shutil.copytree(source, recorded)
        enlarge(source, large)
        for name, folder, aim in (
            ("as recorded", recorded, 15),
            (f"{SEEDS} seeds, {EPOCHS} epochs", large, 60),
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
