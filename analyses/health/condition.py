"""What a condition of the health check is: its texts, its bound, and how it is read from a run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from analyses.health.readings import LAST_STEPS, Reading
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class Bounds:
    """What the bounds of all conditions share.

    Fields:
        last_steps: the largest number of recorded steps in a median.
    """

    last_steps: int = LAST_STEPS


@dataclass(frozen=True)
class NotAsked:
    """A condition that was not asked of a run.

    Fields:
        condition: its key.
        reason: why, as a clause without a capital and a full stop, e.g. "no loss was logged".
        applies: whether the run could have the condition. Not if it has no such layer.
    """

    condition: str
    reason: str
    applies: bool = True


Answer = Reading | NotAsked
# From a run and the `Thresholds`, of which it needs those that its own module declares.
Reader = Callable[[Run, Any], Iterable[Answer]]


@dataclass(frozen=True)
class Condition:
    """A condition: declared once, beside the function that reads it from a run.

    Fields:
        key: its name, as in `gradflow.check` and the reports.
        hypothesis: that a network has the condition; the name in brackets, as `named` of
            `analyses.wording.phrases` expects.
        holds, fails, unknown: clauses that follow "In <network>".
        contradicted_by: the result that would contradict the hypothesis.
        next_step: what to try if the condition holds.
        to_ask: what to record where it was not asked for want of it, as a sentence; empty if the
            reason says that.
        source: the publication that the measure comes from.
        read: gives the answer on this condition, and on any others that come from the same
            computation; these name the same function, and it is called once a run.
        bound: the field of `Thresholds` that the number is compared with; empty if there is none,
            for any such value is ill.
        method: sentences for the method of the report, if a reader needs more than the table.
        leads_to: the keys of conditions that this one may bring about, directly; see
            `analyses.health.chains`.
        link: a clause like `holds` for a chain of conditions, where its time is told beside it;
            `holds` if empty.
        shows_late: whether it takes the first steps to show: then what begins in these may have
            brought it about, though the number was ill from the start.
        needed: whether a network can be called healthy only if this was asked, where it applies.
            Not if it takes a measurement that one has to ask for, such as a probe.
        spoils: whether a training that has it is spoiled: then a report opens with it, and
            `gradflow.check` fails by default.
        harmless: whether a network that has it still counts as healthy.
        any_run: whether a network has it if any of its runs has it, and not half of them.
        only_if_present: whether a report makes a claim of it only where it is not contradicted.
        told_elsewhere: whether another analysis makes the claim in a report.
    """

    key: str
    hypothesis: str
    holds: str
    fails: str
    unknown: str
    contradicted_by: str
    next_step: str
    source: str
    read: Reader
    bound: str = ""
    to_ask: str = ""
    method: str = ""
    leads_to: tuple[str, ...] = ()
    link: str = ""
    shows_late: bool = False
    needed: bool = True
    spoils: bool = True
    harmless: bool = False
    any_run: bool = False
    only_if_present: bool = False
    told_elsewhere: bool = False
