"""What the health check says of a run, in a form that does not depend on its insides."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradflow
from analyses.health.question import all_findings
from analyses.result import Finding, Verdict

CONDITIONS = (
    "disconnected", "not-updated", "accumulating", "stalled", "lost-to-rounding", "clipped",
    "overshooting", "spiking", "not-learning", "overfitting", "vanishing", "exploding",
    "vanishing-in-time", "exploding-in-time", "dead", "saturated", "collapsed", "shattered",
    "noisy", "non-finite", "underflow", "inputs", "frozen-statistics", "stale-statistics",
    "dominated", "conflicting", "unused",
)  # fmt: skip
_STEP = re.compile(r"\b(?:from|since|at|in|of) (?:optimizer )?step (\d+)")


@dataclass(frozen=True)
class Answer:
    """A condition that was found.

    Fields:
        condition: its key.
        text: number, place and cause, as one text.
        cause: the key of the cause, if the finding has one.
        layers: names of layers in the text.
        step: the first step that the finding names; None if it names none.
    """

    condition: str
    text: str
    cause: str
    layers: list[str]
    step: int | None


@dataclass(frozen=True)
class Answers:
    """All that was said of a run.

    Fields:
        found: the conditions found, in the order in which they are told.
        open: those that were left open.
        asked: those that were asked at all.
        healthy: the verdict on the whole: supported, contradicted or inconclusive.
        present: the conditions that this version of the check knows.
    """

    found: list[Answer]
    open: list[str]
    asked: list[str]
    healthy: str

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return asdict(self)


def present() -> list[str]:
    """The conditions of the issue that this version of the health check has."""
    from analyses.health import conditions  # noqa: PLC0415 - it may be elsewhere in other versions

    return [one for one in CONDITIONS if one in conditions.CONDITIONS]


def ask(folder: Path, names: Iterable[str]) -> Answers:
    """Run the health check on the run in `folder`; `names` are the model's modules."""
    run = gradflow.open_run(folder)
    findings = all_findings(gradflow.open_experiment(folder))
    by_topic = {one.topic: one for one in findings}
    whole = by_topic.pop("healthy")
    del run
    modules = [name for name in names if name]
    return Answers(
        [_answer(one, modules) for one in by_topic.values() if one.verdict is Verdict.SUPPORTED],
        [key for key, one in by_topic.items() if one.verdict is Verdict.INCONCLUSIVE],
        list(by_topic),
        whole.verdict.value,
    )


def _answer(finding: Finding, modules: list[str]) -> Answer:
    said = getattr(finding, "cause", "") or ""
    places = [one.name for one in finding.estimates]
    text = " ".join([finding.meaning, str(said) if not hasattr(said, "key") else said.text])
    whole = " ".join([text, *places, *finding.caveats])
    tokens = set(re.findall(r"[\w.]+", whole))
    tokens |= {one.rstrip(".") for one in tokens}
    layers = [name for name in modules if name in tokens]
    layers += [str(one) for one in (getattr(finding, "layer", None),) if one]
    first = getattr(finding, "first_step", None)
    if first is None and (match := _STEP.search(whole)):
        first = int(match.group(1))
    return Answer(
        finding.topic,
        " ".join([text, *finding.caveats]),
        str(getattr(said, "key", getattr(finding, "cause_key", "")) or ""),
        sorted(set(layers)),
        first,
    )
