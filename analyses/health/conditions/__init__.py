"""All conditions of the health check in the order of reports, their bounds, and a run's answers."""

from dataclasses import dataclass

from analyses.health.condition import NotAsked
from analyses.health.conditions.gradients import (
    EXPLODING,
    SHATTERED,
    VANISHING,
    GradientBounds,
)
from analyses.health.conditions.inputs import INPUTS
from analyses.health.conditions.loss import NOT_LEARNING, LossBounds
from analyses.health.conditions.noise import NOISY, NoiseBounds
from analyses.health.conditions.nonfinite import NON_FINITE
from analyses.health.conditions.reach import DISCONNECTED, NOT_UPDATED, UNUSED
from analyses.health.conditions.terms import CONFLICTING, DOMINATED, TermBounds
from analyses.health.conditions.units import DEAD, SATURATED, UnitBounds
from analyses.health.conditions.updates import CLIPPED, STALLED, UpdateBounds
from analyses.health.readings import Reading
from gradflow.runs.reading.run import Run

__all__ = ["CONDITIONS", "Answers", "Thresholds", "ask_all", "read_health"]

_IN_ORDER = (
    NON_FINITE,
    INPUTS,
    UNUSED,
    DISCONNECTED,
    NOT_UPDATED,
    VANISHING,
    EXPLODING,
    SHATTERED,
    DEAD,
    SATURATED,
    CLIPPED,
    STALLED,
    DOMINATED,
    CONFLICTING,
    NOT_LEARNING,
    NOISY,
)
CONDITIONS = {one.key: one for one in _IN_ORDER}


@dataclass(frozen=True)
class Thresholds(
    GradientBounds,
    UnitBounds,
    UpdateBounds,
    LossBounds,
    NoiseBounds,
    TermBounds,
):
    """The bounds of all conditions; each is declared, and told what it is for, beside its own."""


@dataclass(frozen=True)
class Answers:
    """What the health check got from one run.

    Fields:
        readings: of the conditions that were asked, in the order of `CONDITIONS`.
        not_asked: the other ones, with the reason of each.
    """

    readings: tuple[Reading, ...]
    not_asked: tuple[NotAsked, ...]


def ask_all(run: Run, bounds: Thresholds | None = None) -> Answers:
    """Ask `run` for each condition."""
    readers = dict.fromkeys(one.read for one in _IN_ORDER)
    answers = [one for read in readers for one in read(run, bounds or Thresholds())]
    told = {one.condition: one for one in answers}
    readings = [one for key in CONDITIONS if isinstance(one := told[key], Reading)]
    silent = [one for key in CONDITIONS if isinstance(one := told[key], NotAsked)]
    return Answers(tuple(readings), tuple(silent))


def read_health(run: Run, bounds: Thresholds | None = None) -> list[Reading]:
    """The reading of each condition that `run` has data for, in the order of `CONDITIONS`."""
    return list(ask_all(run, bounds).readings)
