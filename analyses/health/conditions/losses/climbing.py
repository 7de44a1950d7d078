"""Whether the loss of a run rises because its own gradient is climbed.

Steps that are too large overshoot: the gradient turns from step to step. If the loss rises while
successive gradients agree, the updates go up, as with the wrong sign of the loss.
"""

from dataclasses import dataclass

import numpy as np

from analyses.health.conditions.updates import weight_updates
from analyses.health.readings import MIN_WINDOW
from analyses.wording.numbers import number
from gradflow.runs.reading.run import Run

SIGN = "Look at the sign of the loss, and for maximize=True in the optimizer."
_RISEN = 1.1  # times the first losses
_FEWEST, _MANY = 3, 9  # steps
_OF_FEW = 0.8  # where they are few, the share of losses that lie above the one before


@dataclass(frozen=True)
class Climb:
    """A loss that rises while successive gradients agree.

    Fields:
        first, last: steps from and up to which it was looked at.
        before, now: medians of its first and of its last losses.
        cosine: of successive gradients, the median over weights and steps.
    """

    first: int
    last: int
    before: float
    now: float
    cosine: float

    @property
    def why(self) -> str:
        """Why the loss rises, in a sentence."""
        return (
            f"Successive gradients agree meanwhile (median cosine {number(self.cosine)}): the "
            "updates climb the loss, as with its wrong sign, or against an adversary."
        )

    @property
    def clause(self) -> str:
        """What the loss does, and why, in sentences."""
        return (
            f"The loss rises from about {number(self.before)} in step {self.first} to "
            f"{number(self.now)} in step {self.last}. {self.why}"
        )


def climb_of(run: Run, until: int) -> Climb | None:
    """How the loss was climbed up to the step `until`; None if it was not, or that is not known."""
    losses = run.steps[run.steps["step"] <= until].set_index("step")["loss"].astype(float)
    losses = losses[np.isfinite(losses.to_numpy())]
    if len(losses) < _FEWEST:
        return None
    if len(losses) < _MANY and (losses.diff().iloc[1:] > 0).mean() < _OF_FEW:
        return None
    size = min(MIN_WINDOW, len(losses) // _FEWEST)
    before, now = float(losses.iloc[:size].median()), float(losses.iloc[-size:].median())
    if now - before <= (_RISEN - 1) * abs(before):
        return None
    rows = run.parameters
    rows = rows[(rows["step"] <= until) & rows["parameter"].isin(weight_updates(run).columns)]
    cosine = float(rows["gradient_cosine"].astype(float).median())
    if not cosine > 0:
        return None
    return Climb(int(losses.index[0]), int(losses.index[-1]), before, now, cosine)
