"""Measures what tracing costs on a GPU, each target as a ratio in one run, and profiles a step.

    python benchmarks/gpu_targets.py --out FOLDER --seconds 150
    python benchmarks/gpu_targets.py --out FOLDER --device cpu --dry-run

Two copies of a network train on the same batches in one process, one traced and one not, in a
random order for each pair; see `overhead.py`. No measurement begins once `--seconds` are over: the
table then says so. Results are written to `targets.json` and `profile.md` in the folder as they
come, so that a run that is cut off leaves what it had. `on_gpu.sh` runs this.
"""

import copy
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import tyro
from pairing import Batches, Trainer, median_interval, paired_ratios, surroundings, traced
from torch.profiler import ProfilerActivity, profile

import gradflow
from gradflow.hooks.selection.schedules import default_schedule
from gradflow.models import build
from gradflow.training.experiment import choose_device

EPOCH = 41
"""Steps of an epoch of the experiment: 980 images in batches of 24."""
BATCH = 24
LAUNCH = re.compile(
    r"cu(da)?(LaunchKernel|LaunchCooperative|GraphLaunch|Memcpy\w*Async|Memset\w*Async)"
)
"""What the host calls to start work on the device, by the names that torch's profiler gives."""


@dataclass(frozen=True)
class Options:
    """What to measure, and where the results go."""

    out: Path
    """Folder of the results."""
    seconds: float = 150.0
    """No measurement begins after that many seconds."""
    device: str = "cuda"
    """cuda, or cpu to try the program."""
    dry_run: bool = False
    """Small images and two pairs: shows that the program works, and measures nothing."""


@dataclass(frozen=True)
class Case:
    """A ratio: traced to untraced training.

    Fields:
        name, aim: of the table's row.
        size: side of the images.
        schedule: makes the schedule.
        steps: steps of a pair.
        pairs: how many pairs are timed.
        compiled: whether both are compiled; statistics are then taken within the graph.
    """

    name: str
    aim: str
    size: int
    schedule: Callable[[], Any]
    steps: int
    pairs: int
    compiled: bool = False


def cases(device: torch.device) -> list[Case]:
    """The targets, the most important first."""

    def by_default() -> Any:
        kind = "cuda" if device.type == "cpu" else device.type
        return default_schedule(kind, steps_per_epoch=EPOCH)

    found = [
        Case("every step, eager, 96x96", "1.10", 96, lambda: 1, 1, 30),
        Case("every step, eager, 300x300", "1.10", 300, lambda: 1, 1, 20),
        Case("default schedule, 300x300", "1.02", 300, by_default, EPOCH, 5),
        Case("1 step in 10, 96x96", "1.02", 96, lambda: 10, 10, 12),
        Case("default schedule, 96x96", "1.02", 96, by_default, EPOCH, 5),
        Case("not recorded, 96x96", "1.00", 96, lambda: _first_alone, 5, 12),
    ]
    if "compiled" in signature(gradflow.Tracer).parameters:
        for size in (96, 300):
            found.append(
                Case(f"every step, in graph, {size}x{size}", "1.05", size, lambda: 1, 1, 20, True)
            )
    return found


def _first_alone(step: int) -> bool:
    return step == 0


def options_of(case: Case) -> dict[str, Any]:
    """The options of the tracer."""
    return {"schedule": case.schedule(), **({"compiled": "in-graph"} if case.compiled else {})}


def measure(case: Case, options: Options, device: torch.device) -> dict[str, Any]:
    """The median ratio of the pairs with its interval, and how many steps were recorded."""
    size, pairs, network = case.size, case.pairs, "resnet34"
    if options.dry_run:
        size, pairs, network = 16, 2, "resnet20"
    model = build(network, classes=5, seed=0).to(device)
    plain, watched = Trainer(copy.deepcopy(model)), Trainer(model)
    with traced(watched, **options_of(case)):
        if case.compiled:
            # Inductor takes minutes on a CPU, and its code there is not what is asked about.
            backend = "aot_eager" if options.dry_run else "inductor"
            plain.model.compile(backend=backend)
            watched.model.compile(backend=backend)
        batches = Batches(size, BATCH if not options.dry_run else 4, device)
        ratios, identical = paired_ratios(watched, plain, batches, pairs, case.steps)
    low, high = median_interval(ratios)
    return {
        "name": case.name,
        "aim": case.aim,
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "pairs": len(ratios),
        "steps_in_a_pair": case.steps,
        "losses": "same" if identical else "other",
    }


def profiled(options: Options, device: torch.device) -> dict[str, Any]:
    """Profile one recorded step and one untraced one; write `profile.md`, return the counts."""
    size, network = (16, "resnet20") if options.dry_run else (96, "resnet34")
    batches = Batches(size, BATCH if not options.dry_run else 4, device)
    drawn = [batches.draw(torch.Generator().manual_seed(0))]
    texts, counts = [], {}
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for name in ("untraced", "recorded"):
        trainer = Trainer(build(network, classes=5, seed=0).to(device))
        case = Case(name, "", size, lambda: 1, 1, 1)
        if name == "untraced":
            seen = _profile_step(trainer, drawn, activities)
        else:
            with traced(trainer, **options_of(case)):
                seen = _profile_step(trainer, drawn, activities)
        averages = seen.key_averages()
        launches = sum(one.count for one in averages if LAUNCH.match(one.key))
        sort = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        table = averages.table(sort_by=sort, row_limit=25, max_name_column_width=60)
        counts[name] = launches
        texts.append(f"# One {name} step\n\n{launches} launches and copies\n\n```\n{table}\n```\n")
    (options.out / "profile.md").write_text("\n".join(texts), encoding="utf-8")
    return {"name": "launches", "counts": counts}


def _profile_step(trainer: Trainer, drawn: list[Any], activities: list[ProfilerActivity]) -> Any:
    for _ in range(4):
        trainer.time(drawn)
    with profile(activities=activities) as seen:
        trainer.time(drawn)
    return seen


def show(results: list[dict[str, Any]], left_out: list[str]) -> str:
    """The table of the results."""
    lines = [
        "| measured | traced / untraced | 95 % interval | aim | pairs |",
        "|---|---|---|---|---|",
    ]
    for one in results:
        if "ratio" in one:
            lines.append(
                f"| {one['name']} | {one['ratio']:.3f} | {one['low']:.3f} to {one['high']:.3f} "
                f"| {one['aim']} | {one['pairs']} |"
            )
        elif "counts" in one:
            words = ", ".join(f"{count} {name}" for name, count in one["counts"].items())
            lines.append(f"| launches of a step at 96x96 | {words} | | tensors + 30 | |")
        else:
            lines.append(f"| {one['name']} | failed: {one['error'][:80]} | | {one['aim']} | |")
    lines += [f"| {name} | not measured: no time left | | | |" for name in left_out]
    return "\n".join(lines) + "\n"


def main(options: Options) -> None:
    """Measure, and print a Markdown table."""
    start = time.monotonic()
    device = choose_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    where = f"torch {torch.__version__}, {named}; {surroundings(device)}"
    results: list[dict[str, Any]] = []
    left_out: list[str] = []
    works: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        (case.name, case.aim, lambda case=case: measure(case, options, device))
        for case in cases(device)
    ]
    works.insert(2, ("launches", "", lambda: profiled(options, device)))
    for name, aim, work in works:
        if time.monotonic() - start > options.seconds:
            left_out.append(name)
            continue
        began = time.monotonic()
        try:
            found = work()
        except Exception as error:  # the others are still worth measuring
            found = {"name": name, "aim": aim, "error": f"{type(error).__name__}: {error}"}
        results.append(found | {"seconds": time.monotonic() - began})
        text = json.dumps({"where": where, "results": results, "left_out": left_out}, indent=1)
        (options.out / "targets.json").write_text(text, encoding="utf-8")
    table = f"{where}\n\n{show(results, left_out)}"
    (options.out / "targets.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
