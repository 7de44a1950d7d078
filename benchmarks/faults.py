"""Interrupts short real trainings in many ways, and checks that no recorded data is lost.

    python benchmarks/faults.py --kills 200 --errors 60 --disks 20

A trial interrupts a training once or several times. It is killed with SIGKILL at a random time, at
a random moment of its writing, or while a line of a manifest is half written (a power cut); or a
system call fails with ENOSPC or EIO, once or from then on; or the file system is full (a tmpfs, if
one can be mounted). After each interruption every table must be readable, hold each row once, and
reach at least to the last saved state; an error message must be one sentence. Then `--resume`
finishes the training, and the result must equal an uninterrupted training bit for bit: all tables
except for times, all weights, and no other file. A failed trial prints its number. The same
`--seed` draws the same trials.
"""

import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from fault_checks import Reference, check_end, check_interrupted, make_images, make_reference
from fault_disks import CannotMountError, SmallDisk
from fault_injection import Circumstances, Fault, Training, start

WAYS = ("time", "moment", "moment", "time", "torn", "moment", "time", "time")


@dataclass(frozen=True)
class Options:
    """How many trials of each kind to run."""

    kills: int = 200
    """Trainings killed: half of them at random times, half at moments of their writing."""
    errors: int = 60
    """System calls that fail, in trainings of their own."""
    disks: int = 20
    """Trainings on a file system that is full before their end."""
    seed: int = 0
    """What is drawn depends on it alone."""


@dataclass
class Tally:
    """The number of interruptions of each kind, the number of trials, and the failures."""

    times: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    failures: list[str] = field(default_factory=list)


class Trial:
    """One training in its own folder, interrupted and resumed until it ends."""

    def __init__(self, name: str, reference: Reference, folder: Path, tally: Tally) -> None:
        self.folder = folder / name
        self.name = name
        self._reference = reference
        self._log = folder / f"{name}.log"
        self._tally = tally
        self._random = random.Random(name)

    def run(self, kind: str) -> None:
        """Run a trial of `kind`: `kills`, `errors` or `disks`."""
        if kind == "kills":
            self._run_killed()
        elif kind == "errors":
            self._run_with_errors()
        else:
            self._run_on_small_disk()

    def _run_killed(self) -> None:
        """Kill the training, check its folder, and resume it; sometimes kill that as well."""
        while True:
            self._kill_once()
            check_interrupted(self.folder, self._reference)
            if self._random.random() < 0.6:
                break
        self._go_on()

    def _run_with_errors(self) -> None:
        """Make a system call fail, check the folder, and resume the training."""
        fault = Fault(
            self._random.choice(("ENOSPC", "EIO")),
            self._random.randint(1, len(self._reference.moments)),
            lasting=self._random.random() < 0.5,
        )
        training = self._start(fault)
        if training.wait() == 0:
            self._count(f"{fault.kind}, the training went on")
        else:
            self._count(f"{fault.kind}, {'from then on' if fault.lasting else 'once'}")
            self._check_sentence(training.wait(), training.errors)
        check_interrupted(self.folder, self._reference)
        self._go_on()

    def _run_on_small_disk(self) -> None:
        """Train on a disk that is too small for the run, then enlarge it and resume."""
        whole = _size(self._reference.folder)
        with SmallDisk(self.folder, self._random.randrange(16_384, whole)) as disk:
            self.folder = disk.folder / "experiment"
            training = self._start(None)
            if training.wait() == 0:
                self._count("full disk, the training went on")
            else:
                self._count("full disk")
                self._check_sentence(training.wait(), training.errors)
            check_interrupted(self.folder, self._reference)
            disk.enlarge(10 * whole)
            self._go_on()

    def _kill_once(self) -> None:
        way = WAYS[self._tally.times.total() % len(WAYS)]
        fault = None
        if way == "moment":
            fault = Fault("kill", self._random.randint(1, len(self._reference.moments)))
        elif way == "torn":
            fault = Fault(
                "torn", self._random.randint(1, self._reference.moments.count("appended"))
            )
        training = self._start(fault)
        if way == "time":
            status = training.kill_after(self._random.uniform(0, self._reference.seconds))
        else:
            status = training.wait()
        if status == -signal.SIGKILL:
            names = {
                "time": "a random time",
                "moment": "a moment of writing",
                "torn": "half a line",
            }
            self._count(f"SIGKILL at {names[way]}")
        else:
            # A resumed training has fewer moments than a whole one, and may be over before.
            assert status == 0, training.errors

    def _go_on(self) -> None:
        training = self._start(None)
        assert training.wait() == 0, f"it does not go on: {training.errors}"
        check_end(self.folder, self._reference)

    def _start(self, fault: Fault | None) -> Training:
        circumstances = Circumstances(fault, merged_at_once=self._random.choice((2, 3, 32)))
        arguments = self._reference.next_command(self.folder)
        return start(arguments, self.folder, self._log, circumstances)

    def _count(self, what: str) -> None:
        self._tally.times[what] += 1

    @staticmethod
    def _check_sentence(status: int, errors: str) -> None:
        assert status == 1, f"exit status {status}: {errors}"
        assert "Traceback" not in errors, errors
        assert errors.startswith("error: "), errors
        assert len(errors.splitlines()) == 1, errors


def references(folder: Path) -> list[Reference]:
    """Two uninterrupted trainings: with probes and merged parts; with a state every 2 epochs."""
    images = ("--data", str(make_images(folder / "images")))
    short = ("--batch-size", "8", "--trace-every", "1", "--device", "cpu")
    probes = ("--models", "plain20", "resnet20", "--epochs", "2")
    probes += ("--probes", "loss_slice")
    rare = ("--models", "resnet20", "--epochs", "4", "--probes", "none")
    rare += ("--state-every", "2", "--checkpoints", "every")
    return [
        make_reference((*images, *short, *probes), folder / "probes", time.monotonic),
        make_reference((*images, *short, *rare), folder / "rare", time.monotonic, merged_at_once=2),
    ]


def run(options: Options, folder: Path) -> dict[str, Tally]:
    """Run all trials; return the tally of each kind."""
    made = references(folder)
    tallies = {kind: Tally() for kind in ("kills", "errors", "disks")}
    for kind, tally in tallies.items():
        number = 0
        while tally.times.total() < getattr(options, kind):
            reference = made[number % len(made)]
            trial = Trial(f"{kind}-{options.seed}-{number}", reference, folder, tally)
            number += 1
            try:
                trial.run(kind)
            except CannotMountError as error:
                print(error)
                break
            except AssertionError as error:
                tally.failures.append(f"{trial.name}: {str(error)[:2000]}")
                print("FAILED", tally.failures[-1], flush=True)
            else:
                shutil.rmtree(trial.folder, ignore_errors=True)
            if number % 20 == 0:
                print(f"{kind}: {number} trials, {dict(tally.times)}", flush=True)
        tally.trials = number
    return tallies


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def as_table(tallies: dict[str, Tally]) -> str:
    """A Markdown table of the trials, their number, and how often data was lost."""
    lines = ["| interruption | times | trials | failed |", "|---|---|---|---|"]
    for kind, tally in tallies.items():
        lines.append(
            f"| **{kind}** | {tally.times.total()} | {tally.trials} | {len(tally.failures)} |"
        )
        lines += [f"| {what} | {times} | | |" for what, times in sorted(tally.times.items())]
    return "\n".join(lines)


def main() -> int:
    """Run the command; the exit status is 1 if any data was lost."""
    options = tyro.cli(Options, description=__doc__)
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="gradflow-faults-"))
    tallies = run(options, folder)
    print(as_table(tallies))
    print(f"{time.monotonic() - begin:.0f} s")
    if any(tally.failures for tally in tallies.values()):
        print(f"what failed is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
