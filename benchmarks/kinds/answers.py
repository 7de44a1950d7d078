"""What the health check says of a run, as a line of results keeps it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradflow
from analyses.health.chains import chains_of
from analyses.health.conditions import CONDITIONS as PRESENT
from analyses.health.conditions import ask_all
from analyses.health.question import all_findings
from analyses.health.readings import Reading
from analyses.result import Verdict

CONDITIONS = (
    "disconnected", "not-updated", "accumulating", "stalled", "lost-to-rounding", "clipped",
    "overshooting", "spiking", "not-learning", "overfitting", "vanishing", "exploding",
    "vanishing-in-time", "exploding-in-time", "dead", "saturated", "collapsed", "shattered",
    "noisy", "non-finite", "underflow", "inputs", "frozen-statistics", "stale-statistics",
    "dominated", "conflicting", "unused",
)  # fmt: skip
_STEP = re.compile(r"\b(?:from|since|at|in|of) step (\d+)")


@dataclass(frozen=True)
class Answer:
    """A condition that was found.

    Fields:
        condition: its key.
        value: its number.
        cause: what is said of the condition, of its number, and of the cause.
        otherwise: what is said beside that: what else it could be, and what was left out.
        layers: the modules that are named.
        step: the first step that is named; None without one.
    """

    condition: str
    value: float | None
    cause: str
    otherwise: str
    layers: list[str]
    step: int | None


@dataclass(frozen=True)
class Answers:
    """All that was said of a run.

    Fields:
        found: the conditions found, the first links of chains first.
        open: those that were left open.
        healthy: the verdict on the whole: supported, contradicted or inconclusive.
    """

    found: list[Answer]
    open: list[str]
    healthy: str

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return asdict(self)


def present() -> list[str]:
    """The conditions above that this version of the health check has."""
    return [one for one in CONDITIONS if one in PRESENT]


def ask(folder: Path, modules: Sequence[str]) -> Answers:
    """Run the health check on the run in `folder`; `modules` are the names in the model."""
    run = gradflow.open_run(folder)
    readings = ask_all(run).readings
    found = [one for one in readings if one.verdict is Verdict.SUPPORTED]
    links = [one.condition for chain in chains_of(run, found) for one in chain.links]
    found.sort(key=lambda one: links.index(one.condition) if one.condition in links else 99)
    findings = all_findings(gradflow.open_experiment(folder))
    return Answers(
        [_answer(one, modules) for one in found],
        [one.condition for one in readings if one.verdict is Verdict.INCONCLUSIVE],
        next(one.verdict.value for one in findings if one.topic == "healthy"),
    )


def _answer(one: Reading, modules: Sequence[str]) -> Answer:
    whole = " ".join([one.layer, one.said, one.cause, one.note])
    tokens = {token.rstrip(".") for token in re.findall(r"[\w.]+", whole)}
    match = _STEP.search(whole)
    since = one.since
    if since is None and match:
        since = int(match.group(1))
    return Answer(
        one.condition,
        None if one.value is None else float(f"{one.value:.4g}"),
        " ".join(part for part in (PRESENT[one.condition].holds, one.said, one.cause) if part),
        " ".join(part for part in (one.note, one.otherwise) if part),
        sorted(name for name in modules if name and name in tokens),
        since,
    )
