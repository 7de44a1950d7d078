"""Fuzzes all code that reads input from outside: files, folders, configurations, command lines.

    python benchmarks/fuzz.py --inputs 100000

The surfaces: CSV files of labels (tables), folders of images (images), run folders and their
checking and repair (runs), recorded configurations (configurations), and the command lines of
training, report, probes and check (commands). An input is a valid example with damaged bytes or
structure, or is drawn wholly at random; its number and `--seed` determine it. Each input must lead
to a value or to a gradflow error of one printable sentence, within limits of time and memory. Files
outside its own folder must stay untouched, and code that only reads must not change that folder
either (fuzz_trial.py). Each surface runs in its own process. If a process dies or hangs, this is a
failure, and another process continues with the next input. Needs Linux.

    python benchmarks/fuzz.py --surface tables --only 4711 --keep /tmp/failing

tries one input again and keeps its folder. Without `--only`, `--keep` keeps the failing inputs.
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from fuzz_commands import make_command, make_configuration
from fuzz_data import make_images, make_table
from fuzz_runs import make_run
from fuzz_trial import Limits, Make, Result, prepare, random_of
from fuzz_worker import load_beforehand, try_all

# By surface: what makes its inputs, and its share of all of them.
SURFACES: dict[str, tuple[Make, float]] = {
    "tables": (make_table, 0.25),
    "images": (make_images, 0.25),
    "runs": (make_run, 0.15),
    "configurations": (make_configuration, 0.2),
    "commands": (make_command, 0.15),
}
LOADED = ["gradflow.train_and_trace", "gradflow.report", "gradflow.probe", "reports.building"]


@dataclass(frozen=True)
class Options:
    """Which inputs to try, and how."""

    inputs: int = 2_000
    """Inputs in all; each surface has its share of them."""
    seed: int = 0
    """What is drawn depends on it alone."""
    surface: tuple[Literal["tables", "images", "runs", "configurations", "commands"], ...] = ()
    """Only these surfaces; their shares of the inputs grow accordingly."""
    only: int | None = None
    """Only the input of this number, of each surface."""
    keep: Path | None = None
    """A folder for the inputs that fail; with --only, for the one that is tried."""
    seconds: float = 5
    """What takes longer has failed."""
    memory: float = 4
    """GiB that an input may map beyond what its process has; what needs more has failed."""


@dataclass
class Tally:
    """The results for the inputs of a surface; failures are counted by their reason."""

    surface: str
    outcomes: Counter[str] = field(default_factory=Counter)
    alike: Counter[str] = field(default_factory=Counter)
    seconds: float = 0
    first: int = 0
    peak: int = 0


def fuzz(surface: str, numbers: range, options: Options, folder: Path) -> Tally:
    """Try the inputs `numbers` of `surface`, in processes that keep their files in `folder`."""
    tally = Tally(surface)
    limits = Limits(options.seconds, int(options.memory * 2**30))
    begin = time.monotonic()
    for result in try_all(surface, SURFACES[surface][0], options.seed, numbers, folder, limits):
        _count(tally, result, options)
    tally.seconds = time.monotonic() - begin
    return tally


def _count(tally: Tally, result: Result, options: Options) -> None:
    tally.outcomes[result.outcome] += 1
    tally.first = tally.first or result.peak
    tally.peak = max(tally.peak, result.peak)
    if result.outcome == "failed":
        # Of those that fail in one place in one way, the first is shown.
        reason = result.reason.split(":")
        key = ":".join(reason[:3])
        tally.alike[key] += 1
        if tally.alike[key] == 1:
            print(
                f"FAILED --surface {tally.surface} --seed {options.seed} --only {result.number}\n"
                f"    {result.reason[:600]}\n    {result.words[:600]}",
                flush=True,
            )
    if options.only is not None:
        print(f"{tally.surface} {result.number}: {result.outcome}\n    {result.words}")
    if options.keep and (result.outcome == "failed" or options.only is not None):
        keep(tally.surface, result, options.seed, options.keep)


def keep(surface: str, result: Result, seed: int, folder: Path) -> None:
    """Make the input of `result` again in `folder`, with a description next to it."""
    base = folder.resolve() / f"{surface}-{seed}-{result.number}"
    shutil.rmtree(base, ignore_errors=True)
    SURFACES[surface][0](random_of(surface, seed, result.number), prepare(base))
    words = f"{result.outcome}\n{result.reason}\n{result.words}\n"
    (base / "input.txt").write_text(words, errors="backslashreplace")


def as_table(tallies: list[Tally]) -> str:
    """The results as a Markdown table.

    The memory columns hold the largest resident memory of a process in MB, after its first input
    and at the end.
    """
    lines = [
        "| surface | inputs | read | refused | failed | a second | first MB | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in tallies:
        rate = one.outcomes.total() / max(one.seconds, 1e-9)
        lines.append(
            f"| {one.surface} | {one.outcomes.total():,} | {one.outcomes['read']:,} "
            f"| {one.outcomes['refused']:,} | {one.outcomes['failed']:,} "
            f"| {rate:,.0f} | {one.first / 1024:,.0f} | {one.peak / 1024:,.0f} |"
        )
    return "\n".join(lines)


def numbers_of(surface: str, options: Options) -> range:
    """The numbers of the inputs of a surface."""
    if options.only is not None:
        return range(options.only, options.only + 1)
    wanted = options.surface or tuple(SURFACES)
    share = SURFACES[surface][1] / sum(SURFACES[name][1] for name in wanted)
    return range(round(options.inputs * share))


def main() -> int:
    """Run the command; the exit status is 1 if an input failed."""
    options = tyro.cli(Options, description=__doc__)
    begin = time.monotonic()
    load_beforehand(LOADED)
    memory = Path("/dev/shm")
    place = str(memory) if memory.is_dir() else None
    tallies = []
    with tempfile.TemporaryDirectory(prefix="gradflow-fuzz-", dir=place) as folder:
        for surface in options.surface or SURFACES:
            tallies.append(fuzz(surface, numbers_of(surface, options), options, Path(folder)))
            print(f"{surface}: {dict(tallies[-1].outcomes)}", flush=True)
    print(as_table(tallies))
    total = sum(tally.outcomes.total() for tally in tallies)
    seconds = time.monotonic() - begin
    print(f"{total:,} inputs in {seconds:.0f} s, {total / seconds:.0f} a second")
    for tally in tallies:
        for reason, times in tally.alike.most_common():
            print(f"{tally.surface}: {times} times {reason}")
    return int(any(tally.alike for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
