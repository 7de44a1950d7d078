"""Measures what alerts say while the networks with a planted condition, and healthy ones, train.

    OMP_NUM_THREADS=1 python benchmarks/alerts.py
    OMP_NUM_THREADS=1 python benchmarks/alerts.py --kinds 3 --kinds-ill 2

The first trains the networks of `planted_faults.py` under `gradflow.Tracer(..., alerts=...)`. Of
the healthy ones it prints how many had an alert, and which; of the ill ones, how many were told of
the planted condition, and in which step. The second does so with the trainings of
`benchmarks/kinds`. The rules were settled on seeds 1 to 3; the results use another.
"""

import random
import statistics
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from planted_faults import data, with_interval
from planted_healthy import HEALTHY
from planted_ill import FAULTS
from planted_networks import Case
from torch import nn
from torch.nn import functional as F

import gradflow

BATCH, POOL = 48, 480
# What no alert looks at: it needs a probe, or is told in the health check alone.
NOT_LOOKED_AT = {"shattered", "saturated"}
LOOKED_AT = frozenset({
    "non-finite", "disconnected", "not-updated", "vanishing", "exploding", "dead", "stalled",
    "clipped", "overshooting", "spiking", "not-learning",
})  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How many networks to draw, and from which seed."""

    seed: int = 2025
    """Of everything that is drawn."""
    per_fault: int = 40
    """Networks of each fault."""
    healthy: int = 231
    """Healthy networks."""
    steps: int = 96
    """Optimizer steps of each."""
    kinds: int = 0
    """In place of all that, so many healthy trainings of each of `benchmarks/kinds`."""
    kinds_ill: int = 0
    """And so many with each fault that an alert may tell."""


@dataclass(frozen=True)
class Told:
    """What was told of one network.

    Fields:
        planted: its condition, or healthy.
        family: how it was made.
        alerts: all that was told.
        expected: the conditions of which one is to be told.
        since: the first step that has it.
    """

    planted: str
    family: str
    alerts: tuple[gradflow.Alert, ...]
    expected: frozenset[str] = frozenset()
    since: int = 0


def cases(options: Options) -> Iterator[Case]:
    """The networks of each fault in turn, then the healthy ones, all drawn with the seed."""
    draw = random.Random(options.seed)
    torch.manual_seed(options.seed)
    for planted, makers in FAULTS.items():
        for index in range(0 if planted in NOT_LOOKED_AT else options.per_fault):
            yield makers[index % len(makers)](draw)
    for index in range(options.healthy):
        yield HEALTHY[index % len(HEALTHY)](draw)


def train(case: Case, folder: Path, steps: int) -> list[gradflow.Alert]:
    """Train the network of `case`, traced into `folder`; return the alerts."""
    told: list[gradflow.Alert] = []
    inputs, targets = data(case)
    optimizer = case.optimizer(list(case.model.parameters()))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: case.rate(step / max(steps - 1, 1))
    )
    with gradflow.Tracer(
        case.model.train(), folder, optimizer=optimizer, alerts=told.append
    ) as tracer:
        for step in range(steps):
            case.at_step(step)
            chosen = torch.arange(step * BATCH, (step + 1) * BATCH) % POOL
            loss = F.cross_entropy(case.model(inputs[chosen]), targets[chosen])
            tracer.log(loss=loss)
            loss.backward()
            if case.clip is not None:
                nn.utils.clip_grad_norm_(case.model.parameters(), case.clip)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return told


def measure(options: Options) -> list[Told]:
    """Train every network."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for index, case in enumerate(cases(options)):
            told = train(case, Path(scratch) / str(index), options.steps)
            expected = frozenset({case.planted} - {"healthy"})
            found.append(Told(case.planted, case.family, tuple(told), expected))
    return found


def measure_kinds(options: Options) -> list[Told]:
    """Train the kinds of models and data of `benchmarks/kinds`, healthy and with a fault each."""
    sys.path.insert(0, str(Path(__file__).with_name("kinds")))
    from healthy import KINDS  # noqa: PLC0415
    from planted import FAULTS as PLANTED  # noqa: PLC0415
    from planted import maker  # noqa: PLC0415
    from training import train as train_kind  # noqa: PLC0415
    from trial import HEALTHY as WELL  # noqa: PLC0415
    from trial import trials  # noqa: PLC0415

    found = []
    ill = options.kinds_ill
    for one in trials(options.seed, list(KINDS), list(PLANTED), options.kinds, ill):
        draw = random.Random(one.key)
        torch.manual_seed(zlib.crc32(one.key.encode()))
        training = maker(one.kind)(draw)
        truth = None if one.fault == WELL else PLANTED[one.fault].plant(training, draw)
        expected = frozenset() if truth is None else frozenset(truth.expected) & LOOKED_AT
        if truth is not None and not expected:
            continue
        told: list[gradflow.Alert] = []
        training.tracer_options = {**training.tracer_options, "alerts": told.append}
        with tempfile.TemporaryDirectory() as scratch:
            outcome = train_kind(training, Path(scratch) / "run")
        if truth is not None and not PLANTED[one.fault].holds(training, outcome):
            continue  # the fault did not take
        if truth is None and outcome.share > training.learns:
            continue  # it did not learn
        since = 0 if truth is None else truth.step or 0
        found.append(Told(one.fault, one.kind, tuple(told), expected, since))
        print(f"{one.fault}, {one.kind}: {[a.condition for a in told if a.begins]}", flush=True)
    return found


def table(found: list[Told]) -> list[str]:
    """By planted condition: how many were told of it, in which step, and of what else."""
    rows = [
        "| planted | trainings | told of it | named as its first step, median | told after so many "
        "steps, median (most) | also told |",
        "|---|---|---|---|---|---|",
    ]
    for planted in dict.fromkeys(one.planted for one in found):
        own = [one for one in found if one.planted == planted]
        begun = [[alert for alert in one.alerts if alert.begins] for one in own]
        pairs = zip(own, begun, strict=True)
        hits = [next((a for a in each if a.condition in one.expected), None) for one, each in pairs]
        known = [one for one in hits if one is not None]
        expected = {name for one in own for name in one.expected}
        others = Counter(a.condition for each in begun for a in each if a.condition not in expected)
        said = ", ".join(f"{name} {count}" for name, count in others.most_common()) or "-"
        # Counted from the step that is the first to have it.
        late = [
            (alert.step - one.since, alert.noticed - one.since)
            for one, alert in zip(own, hits, strict=True)
            if alert is not None
        ]
        steps = (
            f"{statistics.median(first for first, _ in late):.0f} | "
            f"{statistics.median(noticed for _, noticed in late):.0f} "
            f"({max(noticed for _, noticed in late)})"
            if late
            else "- | -"
        )
        told = f"{len(known)}" if planted != "healthy" else "-"
        rows.append(f"| {planted} | {len(own)} | {told} | {steps} | {said} |")
    return rows


def main(options: Options | None = None) -> None:
    """Measure, and print the table, the share of false alarms, and each wrong one."""
    options = options or Options()
    start = time.perf_counter()
    found = measure_kinds(options) if options.kinds or options.kinds_ill else measure(options)
    print("\n".join(table(found)))
    well = [one for one in found if one.planted == "healthy"]
    wrong = [one for one in well if one.alerts]
    ill = [one for one in found if one.planted != "healthy"]
    missed = [one for one in ill if not one.expected & {a.condition for a in one.alerts}]
    print(f"\nfalse alarms: {len(wrong)} of {len(well)}: {with_interval(len(wrong), len(well))}")
    print(f"missed: {len(missed)} of {len(ill)}: {with_interval(len(missed), len(ill))}")
    for one in wrong:
        print(f"wrong: {one.family}: {one.alerts[0].sentence}")
    for one in missed:
        print(f"missed: {one.planted}: {one.family}")
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main(tyro.cli(Options))
