"""Measures how far a resumed training on a GPU differs from an uninterrupted one.

    python benchmarks/resuming.py

Trains each network three times on a GPU, in separate processes: twice without interruption, and
once killed with SIGKILL after a saved state and then resumed. With PyTorch's default kernels, some
of which add in no fixed order, all three may differ. With deterministic kernels
(`torch.use_deterministic_algorithms`) all results must be equal bit for bit. The exit status is 1
if they are not.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from fault_checks import table_of
from torch import Tensor

import gradflow
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Run
from gradflow.training import checkpoints

_TRAIN = """
import sys, torch
from gradflow.train_and_trace import main
torch.use_deterministic_algorithms({deterministic})
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Options:
    """What to train."""

    models: tuple[str, ...] = ("plain34", "resnet34")
    """Networks to train."""
    epochs: int = 3
    """Passes over the digits; the kill comes once there is a first state."""
    probes: tuple[str, ...] = ("none",)
    """Probes to run."""
    device: str = "cuda"
    """Device to train on."""


@dataclass(frozen=True)
class Row:
    """One training compared with an uninterrupted one; its fields are the columns of the table."""

    network: str
    kernels: str
    training: str
    apart: float
    same: bool
    accuracies: tuple[float, ...]

    def as_markdown(self) -> str:
        """A row of the table."""
        weights = "the same bits" if self.apart == 0 else f"{self.apart:.1e}"
        tables = "the same bits" if self.same else "differ"
        accuracies = ", ".join(f"{100 * value:.1f} %" for value in self.accuracies)
        cells = (self.network, self.kernels, self.training, weights, tables, accuracies)
        return f"| {' | '.join(cells)} |"


class Training:
    """A network trained in a separate process, which may be killed and resumed."""

    def __init__(self, network: str, options: Options, folder: Path, deterministic: bool) -> None:
        self.folder = folder
        self._deterministic = deterministic
        what = ("--models", network, "--epochs", str(options.epochs), "--device", options.device)
        kept = ("--checkpoints", "every", "--probes", *options.probes, "--out", str(folder))
        self._process = self._start([*what, *kept])

    def kill_after(self, state: str) -> None:
        """Kill the process once its folder has a file matching `state`, then resume it."""
        end = time.monotonic() + 300
        while not list(self.folder.glob(state)):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.folder} ended, or came to no {state}")
            time.sleep(0.01)
        self._process.kill()
        if self._process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"{self.folder} ended before it could be killed: more --epochs")
        self._process = self._start(["--resume", str(self.folder)])

    def run(self) -> Run:
        """Wait for the end of the training, and return its run."""
        if self._process.wait() != 0:
            raise RuntimeError(f"the training in {self.folder} failed")
        (run,) = gradflow.open_experiment(self.folder).runs
        return run

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _TRAIN.format(deterministic=self._deterministic), *arguments],
            env={**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
            stdout=subprocess.DEVNULL,
        )


def last_weights(run: Run) -> dict[str, Tensor]:
    """All weights of `run` at the end of its last epoch."""
    kept = checkpoints.available(run.folder)
    weights: dict[str, Tensor] = checkpoints.load(kept[max(kept)])["state_dict"]
    return weights


def distance(one: Run, other: Run) -> float:
    """|w - v| / |v| of all floating weights at the end of the last epoch."""
    mine, theirs = last_weights(one), last_weights(other)
    names = [name for name, value in theirs.items() if value.is_floating_point()]
    first, second = (torch.cat([w[n].double().flatten() for n in names]) for w in (mine, theirs))
    return float((first - second).norm() / second.norm())


def same_tables(one: Run, other: Run) -> bool:
    """Whether all tables, except for times, are equal bit for bit."""
    return all(table_of(one, name).equals(table_of(other, name)) for name in TABLES)


def compare(network: str, options: Options, parent: Path, *, deterministic: bool) -> list[Row]:
    """Train `network` three times, once with a kill, and compare the others with the first."""
    kernels = "deterministic" if deterministic else "default"
    first, second, killed = (
        Training(network, options, parent / f"{network}-{kernels}-{name}", deterministic)
        for name in ("first", "second", "killed")
    )
    killed.kill_after("*/state-*.pt")
    whole = first.run()
    rows = []
    for name, training in (("uninterrupted", second), ("killed and resumed", killed)):
        run = training.run()
        apart = distance(run, whole)
        rows.append(
            Row(
                network,
                kernels,
                name,
                apart,
                same=apart == 0 and same_tables(run, whole),
                accuracies=tuple(float(one.epochs.val_accuracy.iloc[-1]) for one in (run, whole)),
            )
        )
    return rows


def main() -> int:
    """Train, compare and print a table."""
    options = tyro.cli(Options, description=__doc__)
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"torch {torch.__version__}, {name}")
    print("| network | kernels | training | weights, |w - v| / |v| | tables | accuracy, beside |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor() as pool:
        compared = [
            pool.submit(compare, network, options, Path(parent), deterministic=deterministic)
            for network in options.models
            for deterministic in (False, True)
        ]
        rows = [row for one in compared for row in one.result()]
    for row in rows:
        print(row.as_markdown())
    return int(any(row.kernels == "deterministic" and not row.same for row in rows))


if __name__ == "__main__":
    sys.exit(main())
