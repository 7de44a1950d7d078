"""All conditions of the health check in the order of reports, their bounds, and a run's answers."""

from dataclasses import dataclass

from analyses.health.condition import NotAsked
from analyses.health.conditions.collapse import COLLAPSED, CollapseBounds
from analyses.health.conditions.gradients import (
    EXPLODING,
    SHATTERED,
    VANISHING,
    GradientBounds,
)
from analyses.health.conditions.inputs import INPUTS, InputBounds
from analyses.health.conditions.losses.loss import NOT_LEARNING, LossBounds
from analyses.health.conditions.losses.spiking import SPIKING, SpikeBounds
from analyses.health.conditions.losses.validation import OVERFITTING, ValidationBounds
from analyses.health.conditions.noise import NOISY, NoiseBounds
from analyses.health.conditions.nonfinite import NON_FINITE
from analyses.health.conditions.normalization import (
    FROZEN_STATISTICS,
    STALE_STATISTICS,
    NormalizationBounds,
)
from analyses.health.conditions.precision import (
    LOST_TO_ROUNDING,
    UNDERFLOW,
    PrecisionBounds,
)
from analyses.health.conditions.reach import DISCONNECTED, NOT_UPDATED, UNUSED
from analyses.health.conditions.steps import ACCUMULATING, OVERSHOOTING, StepBounds
from analyses.health.conditions.terms import CONFLICTING, DOMINATED, TermBounds
from analyses.health.conditions.time import EXPLODING_IN_TIME, VANISHING_IN_TIME, TimeBounds
from analyses.health.conditions.units import DEAD, SATURATED, UnitBounds
from analyses.health.conditions.updates import CLIPPED, STALLED, UpdateBounds
from analyses.health.first_steps import with_onset
from analyses.health.readings import Reading
from gradflow.runs.reading.run import Run

__all__ = ["CONDITIONS", "Answers", "Thresholds", "ask_all", "read_health"]

_IN_ORDER = (
    NON_FINITE,
    INPUTS,
    FROZEN_STATISTICS,
    UNUSED,
    DISCONNECTED,
    NOT_UPDATED,
    ACCUMULATING,
    OVERSHOOTING,
    VANISHING,
    EXPLODING,
    VANISHING_IN_TIME,
    EXPLODING_IN_TIME,
    SHATTERED,
    DEAD,
    SATURATED,
    CLIPPED,
    LOST_TO_ROUNDING,
    UNDERFLOW,
    STALLED,
    COLLAPSED,
    SPIKING,
    DOMINATED,
    CONFLICTING,
    NOT_LEARNING,
    OVERFITTING,
    STALE_STATISTICS,
    NOISY,
)
CONDITIONS = {one.key: one for one in _IN_ORDER}


@dataclass(frozen=True)
class Thresholds(
    GradientBounds,
    TimeBounds,
    UnitBounds,
    UpdateBounds,
    LossBounds,
    SpikeBounds,
    NoiseBounds,
    NormalizationBounds,
    ValidationBounds,
    InputBounds,
    StepBounds,
    PrecisionBounds,
    CollapseBounds,
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
    return Answers(tuple(with_onset(run, one) for one in readings), tuple(silent))


def read_health(run: Run, bounds: Thresholds | None = None) -> list[Reading]:
    """The reading of each condition that `run` has data for, in the order of `CONDITIONS`."""
    return list(ask_all(run, bounds).readings)
