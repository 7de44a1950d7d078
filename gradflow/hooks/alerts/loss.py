"""A loss that leaves its own history, or does not fall."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gradflow.conditions import bounds
from gradflow.conditions.spikes import HISTORY, SPREADS, History
from gradflow.conditions.windows import enough
from gradflow.hooks.alerts.rule import Batch, Layers, Rule, Seen, short
from gradflow.hooks.alerts.windows import Array
from gradflow.runs.format.update_tables import NO_OPTIMIZER

# A loss that rises is told from so many recorded steps on, one that stays at that of guessing from
# so many: large networks take some hundred steps to leave it.
RISING_FROM, GUESSING_FROM = 40, 200


class Spiking(Rule):
    """A step whose loss, or gradient norm and loss, are far above those before.

    It is over once they are half-way back.
    """

    key, name = "spiking", "a loss that spikes"
    bound: ClassVar[float | None] = SPREADS

    def __init__(self) -> None:
        self._history = History()
        self._since = -1

    def look(self, batch: Batch) -> list[Seen]:
        """Compare the loss and the gradient norm of each step with those before."""
        losses, norms = (batch.step_column(name).tolist() for name in ("loss", "gradient_norm"))
        return [
            self._compare(step, losses[place], norms[place])
            for place, step in enumerate(batch.steps)
            if step not in batch.skipped
        ]

    def _compare(self, step: int, loss: float, norm: float) -> Seen:
        # What is not finite is told as such.
        known = [value if math.isfinite(value) else None for value in (loss, norm)]
        found = self._history.look(*known)
        if found.score >= SPREADS:
            self._since = step if self._since < 0 else self._since
            what, value = ("gradient norm", norm) if known[0] is None else ("loss", loss)
            said = (
                f"the {what} is {short(value)} in step {step}, where the median of the recorded "
                f"steps before was {short(found.median)}"
            )
            return Seen(True, step, "", found.score, said)
        if found.score < SPREADS / 2 or step - self._since > HISTORY:
            self._since = -1
        return Seen(False if self._since < 0 else None, step)

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return {"history": self._history.state_dict(), "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._history.load_state_dict(state["history"])
        self._since = int(state["since"])


class NotLearning(Rule):
    """A loss that has risen by half, or stays at that of guessing."""

    key, name, bound = "not-learning", "a loss that does not fall", bounds.FLAT

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: list[float] = []
        self._count = 0
        self._optimizers: set[str] = set()

    def look(self, batch: Batch) -> list[Seen]:
        """Compare the losses of the last steps with those of the first."""
        losses = batch.step_column("loss")
        losses = losses[np.isfinite(losses)]
        self._count += len(losses)
        missing = bounds.LAST_STEPS - len(self._first)
        self._first += losses[:missing].tolist() if missing > 0 else []
        self._last = [*self._last, *losses.tolist()][-bounds.LAST_STEPS :]
        if self._count < RISING_FROM:
            return []
        before, now = float(np.median(self._first)), float(np.median(self._last))
        if min(*self._first, *self._last) <= 0:
            return []
        least = _low_end(self._last) / _high_end(self._first)
        classes = _outputs(batch.layers)
        step = batch.steps[-1]
        if (rows := batch.tables.get("parameters")) is not None:
            self._optimizers |= set(np.ma.filled(rows["optimizer"], "").tolist()) - {NO_OPTIMIZER}
        # Several optimizers have objectives of their own, each of which moves as the others learn.
        if least > bounds.RISEN and len(self._optimizers) < 2:
            said = f"the loss has risen from {short(before)} to {short(now)}, by step {step}"
            return [Seen(True, step, "", now / before, said)]
        guesses = classes > 1 and abs(now / math.log(max(classes, 2)) - 1) < bounds.NEAR_CHANCE
        if guesses and least > bounds.FLAT and self._count >= GUESSING_FROM:
            said = (
                f"the loss is still {short(now)} in step {step}, that of guessing among {classes} "
                f"classes (log {classes} = {short(math.log(classes))})"
            )
            return [Seen(True, step, "", now / before, said)]
        return [Seen(False if now / before < bounds.FLAT else None, step, "", now / before)]

    def state_dict(self) -> dict[str, Any]:
        """Return the first and the last losses."""
        return {
            "first": list(self._first),
            "last": list(self._last),
            "count": self._count,
            "optimizers": sorted(self._optimizers),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._first, self._last = list(state["first"]), list(state["last"])
        self._count = int(state["count"])
        self._optimizers = set(state["optimizers"])


def _low_end(values: list[float]) -> float:
    """The lower end of the interval of the median, by order statistics."""
    return float(np.sort(values)[len(values) - (enough(len(values)) or len(values))])


def _high_end(values: list[float]) -> float:
    ordered: Array = np.sort(values)
    return float(ordered[(enough(len(values)) or len(values)) - 1])


def _outputs(layers: Layers) -> int:
    """The number of the last layer's outputs, which of a classifier are the classes; or 0."""
    found = [
        (depth, place)
        for place, (role, depth) in enumerate(zip(layers.role, layers.depth, strict=True))
        if role in ("linear", "convolution")
    ]
    if not found:
        return 0
    _, place = max(found)
    parts = layers.shape[place].split("x")
    size = parts[0] if layers.role[place] == "convolution" else parts[-1]
    return int(size) if size.isdigit() else 0
