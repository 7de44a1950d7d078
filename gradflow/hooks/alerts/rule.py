"""What a rule is: it looks at the numbers of each transfer, and says whether a condition holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradflow.conditions.bounds import LAST_STEPS, OVERLOOKED
from gradflow.conditions.windows import enough
from gradflow.hooks.alerts.windows import Array, Columns

# Fewer recorded steps do not begin an alert: the first steps of a training are like no others.
LEAST_STEPS = 10


@dataclass(frozen=True)
class Layers:
    """The layers observed so far, in order of execution; a list each."""

    layer: Sequence[str] = ()
    type: Sequence[str] = ()
    role: Sequence[str] = ()
    shape: Sequence[str] = ()
    stage: Sequence[int] = ()
    depth: Sequence[int] = ()
    parameters: Sequence[int] = ()


@dataclass(frozen=True)
class Batch:
    """What one transfer brought.

    Fields:
        tables: rows by table, as columns.
        steps: the recorded steps, in order.
        skipped: those of which the gradient scaler skipped the update.
        layers: all layers observed so far.
    """

    tables: Mapping[str, Columns]
    steps: Sequence[int]
    skipped: frozenset[int]
    layers: Layers

    def step_column(self, name: str) -> Array:
        """A column of the table `steps`, in the order of `steps`; nan where it is missing."""
        return np.ma.filled(np.ma.asanyarray(self.tables["steps"][name]).astype(float), np.nan)


@dataclass(frozen=True)
class Seen:
    """Whether a condition holds.

    Fields:
        ill: whether it does; None if that is open, and what held before still holds.
        step: the first step of which that is so.
        layer, number: where it is worst, and what was measured there.
        said: what holds, where and since when, as a sentence without a full stop.
    """

    ill: bool | None
    step: int
    layer: str = ""
    number: float = float("nan")
    said: str = ""


class Rule:
    """A condition that is looked at while a model trains; a subclass for each.

    Fields:
        key: that of the condition.
        name: the condition in a few words.
        bound: what its number is compared with; None if any such value is ill.
    """

    key: ClassVar[str] = ""
    name: ClassVar[str] = ""
    bound: ClassVar[float | None] = None

    def look(self, batch: Batch) -> list[Seen]:
        """Take the numbers of `batch`; return what they say, in order of time."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what a tracer that continues the run needs: numbers, names, lists of them."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        raise NotImplementedError


def judged(
    beyond: NDArray[np.bool_], known: NDArray[np.bool_], least: int = LEAST_STEPS
) -> bool | None:
    """Whether a number lies beyond its bound, from the last steps in which it does: [steps] each.

    True if the interval of its median lies there, False if half of the steps do not; else None.
    """
    beyond, known = beyond[-LAST_STEPS:], known[-LAST_STEPS:]
    count, total = int((beyond & known).sum()), int(known.sum())
    needed = enough(total)
    if needed is None or total < least:
        return None
    if count >= needed:
        return True
    return False if 2 * count <= total else None


def since(steps: NDArray[np.int64], beyond: NDArray[np.bool_]) -> int:
    """The step from which on `beyond` holds; the last of `steps` if it never does.

    Up to two steps in a row without it are overlooked: a noisy number crosses its bound at times.
    """
    held = np.flatnonzero(beyond)
    if not len(held):
        return int(steps[-1])
    breaks = np.flatnonzero(np.diff(held) - 1 > OVERLOOKED)
    return int(steps[held[breaks[-1] + 1 if len(breaks) else 0]])


def counted(count: int, word: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def short(value: float) -> str:
    """A number in a sentence."""
    return f"{value:.3g}"
