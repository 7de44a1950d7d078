"""A loss that leaves its own history, or does not fall."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gradflow.conditions import bounds
from gradflow.conditions.spikes import HISTORY, LEAST_FACTOR, excess
from gradflow.conditions.windows import enough
from gradflow.hooks.alerts.rule import Batch, Layers, Rule, Seen, short
from gradflow.hooks.alerts.windows import Array

# A loss that rises is told from so many recorded steps on, one that stays at that of guessing from
# so many: large networks take some hundred steps to leave it.
RISING_FROM, GUESSING_FROM = 40, 200
_WORDS = {"loss": "loss", "gradient_norm": "gradient norm"}


class Spiking(Rule):
    """A loss or gradient norm far above its own last values; over once it is half-way back."""

    key, name = "spiking", "a loss or gradient norm that spikes"
    bound: ClassVar[float | None] = 1.0

    def __init__(self) -> None:
        self._histories: dict[str, list[float]] = {name: [] for name in LEAST_FACTOR}
        self._since = dict.fromkeys(LEAST_FACTOR, -1)

    def look(self, batch: Batch) -> list[Seen]:
        """Compare the loss and the gradient norm of each step with those before."""
        columns = {name: batch.step_column(name) for name in LEAST_FACTOR}
        found = []
        for place, step in enumerate(batch.steps):
            told = [
                self._compare(name, step, float(columns[name][place]))
                for name in LEAST_FACTOR
                if step not in batch.skipped
            ]
            spikes = [one for one in told if one is not None]
            quiet = all(since < 0 for since in self._since.values())
            found += spikes[:1] or [Seen(False if quiet else None, step)]
        return found

    def _compare(self, name: str, step: int, value: float) -> Seen | None:
        history = self._histories[name]
        score = excess(history, value, LEAST_FACTOR[name]) if np.isfinite(value) else float("nan")
        median = float(np.median(history)) if history else float("nan")
        if np.isfinite(value):
            history.append(value)
            del history[:-HISTORY]
        if score >= 1:
            if self._since[name] < 0:
                self._since[name] = step
            said = (
                f"the {_WORDS[name]} is {short(value)} in step {step}, where the median of the "
                f"last {len(history) - 1 or 1} recorded steps was {short(median)}"
            )
            return Seen(True, step, "", score, said)
        if score < 0.5 or step - self._since[name] > HISTORY:
            self._since[name] = -1
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return both histories."""
        return {
            "histories": {name: list(one) for name, one in self._histories.items()},
            "since": dict(self._since),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._histories = {name: list(state["histories"].get(name, [])) for name in LEAST_FACTOR}
        self._since = {name: int(state["since"].get(name, -1)) for name in LEAST_FACTOR}


class NotLearning(Rule):
    """A loss that has risen by half, or stays at that of guessing."""

    key, name, bound = "not-learning", "a loss that does not fall", bounds.FLAT

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: list[float] = []
        self._count = 0

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
        if least > bounds.RISEN:
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
        return {"first": list(self._first), "last": list(self._last), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._first, self._last = list(state["first"]), list(state["last"])
        self._count = int(state["count"])


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
