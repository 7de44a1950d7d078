"""Measures what tracing costs on a GPU, each target as a ratio in one run, and profiles a step.

    python benchmarks/gpu_targets.py --out FOLDER --seconds 150
    python benchmarks/gpu_targets.py --out FOLDER --device cpu --dry-run

Two copies of a network train on the same batches in one process, one traced and one not, in a
random order for each pair; see `overhead.py`. No measurement begins once `--seconds` are over, and
none that compiles in the last minute of them: the table then says so. `targets.json`, `targets.md`
and `profile.md` in the folder are written as results come, so that a run that is cut off leaves
what it had. `on_gpu.sh` runs this.
"""

import copy
import json
import re
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import tyro
from pairing import Batches, Trainer, median_interval, paired_ratios, surroundings, traced
from torch.profiler import ProfilerActivity, profile

from gradflow.hooks.reduction.cuda import checked
from gradflow.hooks.selection.schedules import default_schedule
from gradflow.models import build
from gradflow.training.experiment import choose_device

EPOCH = 41
"""Steps of an epoch of the experiment: 980 images in batches of 24."""
BATCH = 24
COMPILING = 60.0
"""Seconds that must be left where a measurement begins that compiles resnet34 twice."""
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
        mode: how both are compiled, as `torch.compile` names it; statistics are then taken within
            the graph. None: neither is.
        triton: whether the tracer may use Triton's kernels.
    """

    name: str
    aim: str
    size: int
    schedule: Callable[[], Any]
    steps: int
    pairs: int
    mode: str | None = None
    triton: bool = True


def cases(device: torch.device) -> list[Case]:
    """The targets, the most important first."""

    def by_default() -> Any:
        kind = "cuda" if device.type == "cpu" else device.type
        return default_schedule(kind, steps_per_epoch=EPOCH)

    every, tenth = (lambda: 1), (lambda: 10)
    return [
        Case("every step, eager, 96x96", "1.10", 96, every, 1, 30),
        Case("every step, eager, 300x300", "1.10", 300, every, 1, 20),
        Case("default schedule, 300x300", "1.02", 300, by_default, EPOCH, 5),
        Case("1 step in 10, 96x96", "1.02", 96, tenth, 10, 12),
        Case("every step, in graph, 96x96", "1.05", 96, every, 1, 20, "default"),
        Case("default schedule, 96x96", "1.02", 96, by_default, EPOCH, 5),
        Case("not recorded, 96x96", "1.00", 96, lambda: _first_alone, 5, 12),
        Case("every step, without Triton, 96x96", "", 96, every, 1, 12, triton=False),
        Case("every step, in graph, 300x300", "1.05", 300, every, 1, 20, "default"),
        Case("in graph, reduce-overhead, 96x96", "1.05", 96, every, 1, 20, "reduce-overhead"),
    ]


def _first_alone(step: int) -> bool:
    return step == 0


def options_of(case: Case) -> dict[str, Any]:
    """The options of the tracer."""
    in_graph = {} if case.mode is None else {"compiled": "in-graph"}
    return {"schedule": case.schedule(), **in_graph}


def measure(case: Case, options: Options, device: torch.device) -> dict[str, Any]:
    """The median ratio of the pairs with its interval, and how many steps were recorded."""
    size, pairs, steps, network = case.size, case.pairs, case.steps, "resnet34"
    if options.dry_run:
        size, pairs, steps, network = 16, 2, min(steps, 5), "resnet20"
    model = build(network, classes=5, seed=0).to(device)
    plain, watched = Trainer(copy.deepcopy(model)), Trainer(model)
    batches = Batches(size, BATCH if not options.dry_run else 4, device)
    with ExitStack() as context:
        if not case.triton:
            without_triton(context)
        context.enter_context(traced(watched, **options_of(case)))
        if case.mode is not None:
            # The first recorded step runs uncompiled, and clears the compiler's cache.
            first = [batches.draw(torch.Generator().manual_seed(1))]
            for trainer in (plain, watched):
                trainer.time(first)
                # Inductor takes minutes on a CPU, and its code there is not what is asked about.
                how = {"backend": "aot_eager"} if options.dry_run else {"mode": case.mode}
                trainer.model.compile(**how)
        ratios, identical = paired_ratios(watched, plain, batches, pairs, steps)
    low, high = median_interval(ratios)
    return {
        "name": case.name,
        "aim": case.aim,
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "pairs": len(ratios),
        "steps_in_a_pair": steps,
        "losses": "same" if identical else "other",
    }


def without_triton(context: ExitStack) -> None:
    """Let the tracer take what it has where Triton or its C compiler is missing."""
    without = {"kernels": None, "products": None, "work_in_groups": False}
    for name, found in {**without, "counts_magnitudes": False}.items():
        context.enter_context(patch.object(checked, name, lambda _, found=found: found))


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
    compiling = 0.0 if options.dry_run else COMPILING
    works: list[tuple[str, str, float, Callable[[], dict[str, Any]]]] = [
        (
            case.name,
            case.aim,
            0.0 if case.mode is None else compiling,
            lambda case=case: measure(case, options, device),
        )
        for case in cases(device)
    ]
    works.insert(2, ("launches", "", 0.0, lambda: profiled(options, device)))
    for name, aim, needed, work in works:
        if time.monotonic() - start > options.seconds - needed:
            left_out.append(name)
        else:
            results.append(_result(name, aim, work))
        text = json.dumps({"where": where, "results": results, "left_out": left_out}, indent=1)
        (options.out / "targets.json").write_text(text, encoding="utf-8")
        table = f"{where}\n\n{show(results, left_out)}"
        (options.out / "targets.md").write_text(table, encoding="utf-8")
    print(table)


def _result(name: str, aim: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a measurement gives, or the error that ended it, and the seconds it took."""
    began = time.monotonic()
    try:
        found = work()
    except Exception as error:  # the others are still worth measuring
        found = {"name": name, "aim": aim, "error": f"{type(error).__name__}: {error}"}
    return found | {"seconds": time.monotonic() - began}


if __name__ == "__main__":
    main(tyro.cli(Options))
