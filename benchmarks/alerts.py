"""Measures what alerts say while the networks with a planted condition, and healthy ones, train.

    OMP_NUM_THREADS=1 python benchmarks/alerts.py

Trains the networks of `planted_faults.py` under `gradflow.Tracer(..., alerts=...)`. Of the healthy
ones it prints how many had an alert, and which; of the ill ones, how many were told of the planted
condition, and in which step. The rules were settled on seeds 1 to 3; the results use another.
"""

import random
import statistics
import tempfile
import time
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


@dataclass(frozen=True)
class Told:
    """What was told of one network: its planted condition, how it was made, and the alerts."""

    planted: str
    family: str
    alerts: tuple[gradflow.Alert, ...]


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
            found.append(Told(case.planted, case.family, tuple(told)))
    return found


def table(found: list[Told]) -> list[str]:
    """By planted condition: how many were told of it, in which step, and of what else."""
    rows = [
        "| planted | networks | told of it | first step of it, median | told at step, median "
        "(most) | also told |",
        "|---|---|---|---|---|---|",
    ]
    for planted in dict.fromkeys(one.planted for one in found):
        own = [one for one in found if one.planted == planted]
        begun = [[alert for alert in one.alerts if alert.begins] for one in own]
        hits = [next((a for a in each if a.condition == planted), None) for each in begun]
        known = [one for one in hits if one is not None]
        others = Counter(a.condition for each in begun for a in each if a.condition != planted)
        said = ", ".join(f"{name} {count}" for name, count in others.most_common()) or "-"
        steps = (
            f"{statistics.median(one.step for one in known):.0f} | "
            f"{statistics.median(one.noticed for one in known):.0f} "
            f"({max(one.noticed for one in known)})"
            if known
            else "- | -"
        )
        told = f"{len(known)}" if planted != "healthy" else "-"
        rows.append(f"| {planted} | {len(own)} | {told} | {steps} | {said} |")
    return rows


def main(options: Options | None = None) -> None:
    """Measure, and print the table, the share of false alarms, and each wrong one."""
    options = options or Options()
    start = time.perf_counter()
    found = measure(options)
    print("\n".join(table(found)))
    well = [one for one in found if one.planted == "healthy"]
    wrong = [one for one in well if one.alerts]
    ill = [one for one in found if one.planted != "healthy"]
    missed = [one for one in ill if one.planted not in {a.condition for a in one.alerts}]
    print(f"\nfalse alarms: {len(wrong)} of {len(well)}: {with_interval(len(wrong), len(well))}")
    print(f"missed: {len(missed)} of {len(ill)}: {with_interval(len(missed), len(ill))}")
    for one in wrong:
        print(f"wrong: {one.family}: {one.alerts[0].sentence}")
    for one in missed:
        print(f"missed: {one.planted}: {one.family}")
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main(tyro.cli(Options))
