"""Other tools that diagnose, on the trainings of this benchmark: who finds what, who cries wolf.

    pip install torch-audit==0.3.0 torchmortem==0.1.1 trainscope==1.8.1 ormas-monitor==0.2.3
    OMP_NUM_THREADS=1 python benchmarks/kinds/beside_peers.py --seed 31 --results peers.jsonl

Each training is run once under `gradflow.Tracer`, and once under each tool, from the same seeds. A
fault is *named* if some complaint speaks of a condition that its truth expects, by the mapping in
`diagnosers/subjects.py`; a *symptom* is told if one speaks of an effect of it. SageMaker Debugger's
rules are those of `diagnosers/debugger.py`. Results are appended at once: the same command goes on.
"""

import json
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import tyro
from diagnosers import DIAGNOSERS, CouldNotRunError, watched
from diagnosers.subjects import conditions_of
from healthy import KINDS
from planted import FAULTS
from run import chosen, stored
from tables import share
from trial import Trial, prepared, run_trial, trials

OWN = "gradflow"
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Which trainings to run."""

    seed: int = 31
    """Of everything that is drawn."""
    kinds: tuple[str, ...] = ()
    """Kinds, by the beginnings of their names; all of them if none is given."""
    faults: tuple[str, ...] = ()
    """Faults, likewise; "none" for healthy trainings only."""
    healthy: int = 2
    """Healthy trainings of each kind."""
    ill: int = 1
    """Trainings with each fault."""
    results: Path = Path("peers.jsonl")
    """A file to which a line a training is appended."""
    only_tables: bool = False
    """Train nothing, print what the file holds."""
    minutes: float = 0.0
    """Stop after so many; 0 for no limit."""


def asked(trial: Trial, name: str) -> Row:
    """What one tool says of a training: its complaints, or why it could not run."""
    training, _, _ = prepared(trial)
    began = time.process_time()
    said: Row = {"complaints": [], "could_not_run": "", "losses": None}
    # Some of the tools print as they go.
    with (
        tempfile.TemporaryDirectory() as scratch,
        warnings.catch_warnings(),
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            losses, complaints = watched(training, DIAGNOSERS[name](), Path(scratch))
        except CouldNotRunError as reason:
            said["could_not_run"] = str(reason)
        except Exception as error:  # a tool may fail in any way
            where = traceback.extract_tb(error.__traceback__)[-1]
            said["could_not_run"] = (
                f"{type(error).__name__} in {Path(where.filename).name}: {str(error)[:160]}"
            )
        else:
            said["complaints"] = [[one.subject, one.step] for one in complaints]
            said["losses"] = zlib.crc32(repr(losses).encode())
    return {**said, "seconds": round(time.process_time() - began, 2)}


def run_beside(trial: Trial) -> Row:
    """A line of results: gradflow's, with those of the other tools under "tools"."""
    row = run_trial(trial)
    return {**row, "tools": {name: asked(trial, name) for name in DIAGNOSERS}}


def complaints_of(row: Row, tool: str) -> list[str] | None:
    """The subjects of a tool's complaints; None if it could not run."""
    if tool == OWN:
        found = [one["condition"] for one in row["answers"]["found"]]
        return [f"{OWN}: {one}" for one in found if one != "noisy"]
    said = row["tools"][tool]
    return None if said["could_not_run"] else [subject for subject, _ in said["complaints"]]


def speaks_of(row: Row, tool: str, part: str) -> bool:
    """Whether some complaint speaks of a condition in that part of the truth."""
    wanted = set(row["truth"][part])
    return any(conditions_of(one) & wanted for one in complaints_of(row, tool) or [])


def finds_table(rows: list[Row], tools: list[str]) -> list[str]:
    """By fault and tool: in how many trainings it is named, and in how many anything is said."""
    lines = [f"| fault | trainings | {' | '.join(tools)} |", "|---" * (len(tools) + 2) + "|"]
    for fault in dict.fromkeys(row["fault"] for row in rows):
        own = [row for row in rows if row["fault"] == fault]
        cells = []
        for tool in tools:
            ran = [row for row in own if complaints_of(row, tool) is not None]
            named = sum(speaks_of(row, tool, "expected") for row in ran)
            any_at_all = sum(bool(complaints_of(row, tool)) for row in ran)
            missing = f", {len(own) - len(ran)} could not run" if len(ran) < len(own) else ""
            cells.append(f"{named} ({any_at_all}){missing}")
        lines.append(f"| {fault} | {len(own)} | {' | '.join(cells)} |")
    return lines


def totals(well: list[Row], ill: list[Row], tools: list[str]) -> list[str]:
    """By tool: what it finds in all faults, and how often it complains of healthy trainings."""
    lines = [
        "| tool | ran on | faults named | or a symptom | any complaint in ill ones "
        "| any complaint in healthy ones | training unchanged | seconds |",
        "|---" * 8 + "|",
    ]
    for tool in tools:
        ran = [row for row in ill if complaints_of(row, tool) is not None]
        sound = [row for row in well if complaints_of(row, tool) is not None]
        named = [row for row in ran if speaks_of(row, tool, "expected")]
        symptom = [row for row in ran if row in named or speaks_of(row, tool, "effects")]
        wolf = sum(bool(complaints_of(row, tool)) for row in sound)
        loud = sum(bool(complaints_of(row, tool)) for row in ran)
        others = [row["tools"][tool] for row in (*ran, *sound)] if tool != OWN else []
        same = sum(
            row["tools"][tool]["losses"] == row["losses"] for row in (*ran, *sound) if tool != OWN
        )
        unchanged = f"{same} of {len(others)}" if others else "the one compared with"
        seconds = [one["seconds"] for one in others] or [row["seconds"] for row in (*ran, *sound)]
        lines.append(
            f"| {tool} | {len(ran)} of {len(ill)} ill, {len(sound)} of {len(well)} healthy "
            f"| {share(len(named), len(ran))} | {share(len(symptom), len(ran))} "
            f"| {share(loud, len(ran))} | {share(wolf, len(sound))} | {unchanged} "
            f"| {sum(seconds) / max(len(seconds), 1):.1f} |"
        )
    return lines


def wolves(well: list[Row], tools: list[str]) -> list[str]:
    """What each tool says of healthy trainings, and how often."""
    lines = ["| complaint | healthy trainings | of |", "|---|---|---|"]
    for tool in tools:
        given = [one for row in well if (one := complaints_of(row, tool)) is not None]
        for subject, count in Counter(one for own in given for one in set(own)).most_common():
            lines.append(f"| {subject} | {count} | {len(given)} |")
    return lines


def reasons(rows: list[Row], tools: list[str]) -> list[str]:
    """Why a tool could not run, and on which kinds."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for tool in tools:
            reason = row["tools"][tool]["could_not_run"] if tool != OWN else ""
            if reason:
                found.setdefault((tool, reason), set()).add(row["kind"])
    return [
        f"- {tool} could not run on {', '.join(sorted(kinds))}: {reason}"
        for (tool, reason), kinds in found.items()
    ]


def report(rows: list[Row]) -> list[str]:
    """All tables, over trainings that are healthy, or have their fault, by the benchmark."""
    tools = [OWN, *DIAGNOSERS]
    kept = [row for row in rows if row["kept"]]
    well = [row for row in kept if row["truth"] is None]
    ill = [row for row in kept if row["truth"] is not None]
    parts = (
        totals(well, ill, tools),
        finds_table(ill, tools),
        wolves(well, tools),
        reasons(kept, tools),
    )
    return [line for part in parts for line in (*part, "")]


def main(options: Options) -> None:
    """Run what is missing, and print the tables."""
    kinds, faults = chosen(list(KINDS), options.kinds), chosen(list(FAULTS), options.faults)
    work = trials(options.seed, kinds, faults, options.healthy, options.ill)
    have = stored(options.results, None)
    began = time.perf_counter()
    for trial in work if not options.only_tables else []:
        if options.minutes and time.perf_counter() - began > 60 * options.minutes:
            break
        if trial.key in have:
            continue
        try:
            row = run_beside(trial)
        except Exception:
            print(f"{trial.key} failed:\n{traceback.format_exc()}", file=sys.stderr)
            continue
        with options.results.open("a", encoding="utf-8") as file:
            print(json.dumps(row), file=file, flush=True)
    have = stored(options.results, None)
    rows = [have[one.key] for one in work if one.key in have]
    print("\n".join(report(rows)))
    print(f"{len(rows)} of {len(work)} trainings")


if __name__ == "__main__":
    main(tyro.cli(Options))
