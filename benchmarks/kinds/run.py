"""Measures how often the health check is right on kinds of models and data that people train.

    OMP_NUM_THREADS=1 python benchmarks/kinds/run.py --seed 2026 --results kinds.jsonl

Draws healthy trainings of every kind in `healthy`, and trainings into which a fault of `planted` is
put; trains each under `gradflow.Tracer`, asks the health check, and prints how often it is right.
Each result is appended to a file at once: the same command goes on where one was stopped, if no
source has changed, and `--only-tables` prints the tables of what is there. Bounds were chosen on
seeds 1 to 9.
"""

import hashlib
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from answers import CONDITIONS, present
from healthy import KINDS
from planted import FAULTS
from tables import report
from trial import Trial, mutants, run_trial, trials

import analyses
import gradflow


@dataclass(frozen=True)
class Options:
    """Which trainings to run."""

    seed: int = 2026
    """Of everything that is drawn."""
    kinds: tuple[str, ...] = ()
    """Kinds, by the beginnings of their names; all of them if none is given."""
    faults: tuple[str, ...] = ()
    """Faults, likewise; "none" for healthy trainings only."""
    healthy: int = 30
    """Healthy trainings of each kind."""
    ill: int = 12
    """Trainings with each fault."""
    scripts: int = 0
    """Scripts of each kind into which ten bugs each are planted, one at a time."""
    bugs: tuple[str, ...] = ()
    """Those bugs, by the beginnings of their names; all of them if none is given."""
    jobs: int = 1
    """Processes."""
    results: Path = Path("kinds.jsonl")
    """A file to which a line a training is appended."""
    any_code: bool = False
    """Also take lines that other code than the present one has written."""
    only_tables: bool = False
    """Train nothing, print what the file holds."""
    minutes: float = 0.0
    """Stop after so many; 0 for no limit."""
    verbose: bool = False
    """Also list each wrong answer with what the check said."""


def chosen(names: list[str], beginnings: tuple[str, ...]) -> list[str]:
    """Those of `names` that begin with one of `beginnings`, or all."""
    return [one for one in names if not beginnings or one.startswith(beginnings)]


def code() -> str:
    """A few digits that change with any source of the toolkit or of this benchmark."""
    digest = hashlib.sha256()
    for package in (Path(str(gradflow.__file__)), Path(str(analyses.__file__)), Path(__file__)):
        for path in sorted(package.parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def stored(path: Path, written_by: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file of results by key, of one code or of any.

    A line that was cut off is left out.
    """
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if written_by not in (None, row.get("code")):
            continue
        found[f"{row['seed']}/{row['kind']}/{row['fault']}/{row['index']}"] = row
    return found


def attempted(trial: Trial) -> dict[str, Any] | None:
    """The result of a trial; None, with the error on the screen, if it failed."""
    try:
        return run_trial(trial)
    except Exception:
        print(f"{trial.key} failed:\n{traceback.format_exc()}", file=sys.stderr)
        return None


def results_of(work: list[Trial], jobs: int) -> Iterator[dict[str, Any]]:
    """The results of the trials that do not fail, run in this process or in several."""
    if jobs == 1:
        yield from filter(None, map(attempted, work))
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from filter(None, pool.imap_unordered(attempted, work))


def main(options: Options) -> bool:
    """Run what is missing, print the tables, and say whether the targets are met."""
    kinds, faults = chosen(list(KINDS), options.kinds), chosen(list(FAULTS), options.faults)
    work = trials(options.seed, kinds, faults, options.healthy, options.ill)
    scripted = mutants(options.seed, [one for one in kinds if one != "gan"], options.scripts)
    bugs = tuple(f"bug: {one}" for one in options.bugs)
    work += [one for one in scripted if not bugs or one.fault.startswith(bugs)]
    now = code()
    have = stored(options.results, None if options.any_code else now)
    missing = [] if options.only_tables else [one for one in work if one.key not in have]
    began = time.perf_counter()
    if missing:
        with options.results.open("a", encoding="utf-8") as file:
            for row in results_of(missing, options.jobs):
                print(json.dumps({**row, "code": now}), file=file, flush=True)
                if options.minutes and time.perf_counter() - began > 60 * options.minutes:
                    break
    have = stored(options.results, None if options.any_code else now)
    rows = [have[one.key] for one in work if one.key in have]
    lines, kept = report(rows, present(), verbose=options.verbose)
    print("\n".join(lines))
    absent = [one for one in CONDITIONS if one not in present()]
    print(f"\nconditions that this version does not have: {', '.join(absent) or 'none'}")
    print(
        f"{len(rows)} of {len(work)} trainings, {sum(row['seconds'] for row in rows):.0f} seconds "
        f"at work; targets {'kept' if kept else 'missed'}"
    )
    return kept


if __name__ == "__main__":
    raise SystemExit(not main(tyro.cli(Options)))
