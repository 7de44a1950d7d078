"""Measures how often the health check is right, on networks with a known condition.

    OMP_NUM_THREADS=1 python benchmarks/planted_faults.py

Draws networks with one planted condition, and healthy ones. It trains each for some steps under
`gradflow.Tracer` into a temporary folder, opens the run and runs the health check as a report does.
It prints how often each condition was found in networks with and without it. The bounds of the
health check were chosen on seeds 1 to 3; the reported results use another seed.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from planted_healthy import HEALTHY
from planted_ill import FAULTS
from planted_networks import CLASSES, IMAGE, INPUTS, Case
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow
from analyses.health.question import all_findings
from analyses.result import Verdict
from analyses.statistics.proportions import wilson_interval

BATCH, POOL = 48, 480
MOST_FALSE_ALARMS, MOST_MISSES = 0.02, 0.05
POINTS, LINES = 64, 6


@dataclass(frozen=True)
class Options:
    """How many networks to draw, and from which seed."""

    seed: int = 2025
    """Of everything that is drawn."""
    per_fault: int = 40
    """Networks of each fault."""
    healthy: int = 231
    """Healthy networks."""
    steps: int = 24
    """Optimizer steps of each."""


@dataclass(frozen=True)
class Answer:
    """The answer of the health check for one network.

    Fields:
        planted, family: those of the case.
        found: the conditions with the verdict supported.
        placed: whether the place of the first non-finite value is correct; None if the case has no
            such value, or none was found.
        healthy: the verdict on the whole network.
    """

    planted: str
    family: str
    found: frozenset[str]
    placed: bool | None
    healthy: Verdict


def generate(options: Options) -> Iterator[Case]:
    """The networks of each fault in turn, then the healthy ones, all drawn with the seed."""
    draw = random.Random(options.seed)
    torch.manual_seed(options.seed)
    for makers in FAULTS.values():
        for index in range(options.per_fault):
            yield makers[index % len(makers)](draw)
    for index in range(options.healthy):
        yield HEALTHY[index % len(HEALTHY)](draw)


def data(case: Case) -> tuple[Tensor, Tensor]:
    """Standard normal inputs, [POOL, ...], and the classes that a random linear map gives them."""
    inputs = torch.randn((POOL, *(IMAGE if case.images else (INPUTS,))))
    flat = inputs.flatten(1)
    return inputs, (flat @ torch.randn((flat.shape[1], CLASSES))).argmax(1)


def train(case: Case, folder: Path, steps: int) -> None:
    """Train the network of `case` for `steps` steps of one epoch, traced into `folder`."""
    inputs, targets = data(case)
    optimizer = case.optimizer(list(case.model.parameters()))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: case.rate(step / max(steps - 1, 1))
    )
    with gradflow.Tracer(case.model.train(), folder, optimizer=optimizer) as tracer:
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
        if case.shattering:
            with tracer.paused():
                tracer.write_table("shattering", lines(case.model, inputs))
        tracer.end_epoch()


def lines(model: nn.Module, inputs: Tensor) -> dict[str, list[object]]:
    """Columns of the table shattering at the first linear layer, along lines between inputs.

    Uses only the gradient of the first logit with respect to the first layer's output, by autograd,
    with frozen batch-norm statistics.
    """
    model.eval()
    correlations = []
    name, layer = next(
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)
    )
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda *args: kept.append(args[2]))
    for index in range(LINES):
        share = torch.linspace(0, 1, POINTS)[:, None]
        line = (1 - share) * inputs[2 * index] + share * inputs[2 * index + 1]
        logits = model(line)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), kept[-1])
        centred = (gradient - gradient.mean(0)).double()
        products = (centred[1:] * centred[:-1]).sum(1).mean() / (centred**2).sum(1).mean()
        correlations.append(float(products))
    handle.remove()
    model.train()
    mean = sum(correlations) / LINES
    return {"layer": [name], "lag": [1], "points": [POINTS], "autocorrelation": [mean]}


def ask(case: Case, folder: Path) -> Answer:
    """Open the run in `folder` and run the health check on it."""
    run = gradflow.open_run(folder)
    findings = all_findings(gradflow.open_experiment(folder))
    verdicts = {finding.topic: finding.verdict for finding in findings}
    healthy = verdicts.pop("healthy")
    found = frozenset(name for name, one in verdicts.items() if one is Verdict.SUPPORTED)
    placed = None
    if case.place is not None and "non-finite" in found:
        first = run.description["first_nonfinite"]
        said = next(one.caveats for one in findings if one.key.startswith("non-finite"))[1]
        placed = (first["layer"], first["step"], first["direction"]) == case.place
        placed = (
            placed and f"step {case.place[1]} " in said and f"of layer {case.place[0]} " in said
        )
    return Answer(case.planted, case.family, found, placed, healthy)


def measure(options: Options) -> list[Answer]:
    """Train and check every network that `options` generate."""
    answers = []
    with tempfile.TemporaryDirectory() as scratch:
        for index, case in enumerate(generate(options)):
            folder = Path(scratch) / str(index)
            train(case, folder, options.steps)
            answers.append(ask(case, folder))
    return answers


def with_interval(count: int, total: int) -> str:
    """A count as a percentage with Wilson's 95 % interval."""
    low, high = wilson_interval(count, total)
    return f"{100 * count / max(total, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def confusion(answers: list[Answer]) -> list[str]:
    """The confusion table: planted by found conditions; a network may have several findings."""
    names = list(FAULTS)
    rows = [
        f"| planted | networks | {' | '.join(names)} | none found |",
        "|---" * (len(names) + 3) + "|",
    ]
    for planted in (*names, "healthy"):
        own = [one for one in answers if one.planted == planted]
        counts = Counter(name for one in own for name in one.found)
        cells = [str(counts[name]) for name in names]
        none = sum(not one.found for one in own)
        rows.append(f"| {planted} | {len(own)} | {' | '.join(cells)} | {none} |")
    return rows


def rates(answers: list[Answer]) -> list[str]:
    """The table of error rates: misses of each fault, and false alarms, with intervals."""
    rows = ["| measured | of | share (95 % interval) | target |", "|---|---|---|---|"]
    ill = [one for one in answers if one.planted != "healthy"]
    for planted in (*FAULTS, "any fault"):
        own = [one for one in ill if planted in (one.planted, "any fault")]
        missed = sum(one.planted not in one.found for one in own)
        share = with_interval(missed, len(own))
        rows.append(f"| missed: {planted} | {len(own)} | {share} | {MOST_MISSES:.0%} |")
    well = [one for one in answers if one.planted == "healthy"]
    for name, count in (
        ("false alarm: any condition in a healthy network", sum(bool(one.found) for one in well)),
        ("not called healthy", sum(one.healthy is not Verdict.SUPPORTED for one in well)),
    ):
        target = f"{MOST_FALSE_ALARMS:.0%}" if name.startswith("false") else ""
        rows.append(f"| {name} | {len(well)} | {with_interval(count, len(well))} | {target} |")
    found = [one for one in ill if one.placed is not None]
    right = with_interval(sum(bool(one.placed) for one in found), len(found))
    rows.append(f"| first value not finite placed rightly | {len(found)} | {right} | |")
    return rows


def within_targets(answers: list[Answer]) -> bool:
    """Whether the rates of false alarms and of misses over all networks meet their targets."""
    well = [one for one in answers if one.planted == "healthy"]
    ill = [one for one in answers if one.planted != "healthy"]
    alarms = sum(bool(one.found) for one in well) / max(len(well), 1)
    misses = sum(one.planted not in one.found for one in ill) / max(len(ill), 1)
    return alarms <= MOST_FALSE_ALARMS and misses <= MOST_MISSES


def main(options: Options | None = None) -> bool:
    """Measure, print the tables, and say whether the targets are met."""
    options = options or Options()
    start = time.perf_counter()
    answers = measure(options)
    print("\n".join((*confusion(answers), "", *rates(answers), "")))
    for one in answers:
        well = one.planted == "healthy"
        if one.found if well else one.planted not in one.found:
            print(f"wrong: {one.planted} ({one.family}): found {', '.join(one.found) or 'none'}")
        elif well and one.healthy is not Verdict.SUPPORTED:
            print(f"open: {one.planted} ({one.family})")
    kept = within_targets(answers)
    print(
        f"targets {'kept' if kept else 'missed'}; {time.perf_counter() - start:.0f} seconds, "
        f"{time.process_time():.0f} of them at work"
    )
    return kept


if __name__ == "__main__":
    raise SystemExit(not main(tyro.cli(Options)))
