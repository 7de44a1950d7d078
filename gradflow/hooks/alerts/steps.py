"""Steps that are too large."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradflow.conditions import bounds
from gradflow.conditions.overshooting import first_large, leaps, suffers
from gradflow.hooks.alerts.rule import LEAST_STEPS, Batch, Rule, Seen, short
from gradflow.hooks.alerts.updates import WholeUpdates, weights_of
from gradflow.hooks.alerts.windows import Array, Window, filled, median

_CLIMBED = 1.1  # times the first losses


class Overshooting(Rule):
    """Updates above a tenth of the weights in three of ten steps, and a loss that suffers from it.

    The loss must have doubled: one that stays may be one that takes a while to begin to fall, as
    from small weights, which grow by large factors. A loss that is climbed, which rises while
    successive gradients agree, is not told: its steps grow as it does.
    """

    key, name, bound = "overshooting", "steps that are too large", bounds.OVERSHOOTING

    def __init__(self, turns: int = 1) -> None:
        self._updates = WholeUpdates(turns)
        self._ratios, self._losses, self._cosines = Window(), Window(), Window()
        self._large: int | None = None
        self._before = float("nan")
        self._highest = float("-inf")
        self._climbed = False

    def look(self, batch: Batch) -> list[Seen]:
        """Whether there were such steps, and what the loss has done since."""
        rows = batch.tables.get("parameters")
        if rows is None:
            return []
        weights = weights_of(batch.layers)
        self._ratios.add_one(batch.steps, self._updates.ratios(rows, batch.steps, weights))
        self._losses.add_one(batch.steps, batch.step_column("loss"))
        self._cosines.add_one(batch.steps, _cosines(rows, batch))
        ratios, losses = self._ratios.values[:, 0], self._losses.values[:, 0]
        steps = self._ratios.steps
        with np.errstate(invalid="ignore"):
            large = ratios > bounds.OVERSHOOTING
        if self._large is None:
            self._large = first_large(large, steps)
            if self._large is None:
                return [Seen(False, batch.steps[-1])]
            self._before = median(losses[steps <= self._large][-bounds.MIN_WINDOW :])
            # Asked now, for later the window has moved past these losses.
            self._climbed = self._is_climbed()
        if not large[-bounds.LAST_STEPS :].any():
            self._large, self._highest, self._climbed = None, float("-inf"), False
            return [Seen(False, batch.steps[-1])]
        after = losses[steps > self._large]
        if len(after) < LEAST_STEPS or np.isnan(self._before):
            return [Seen(None, batch.steps[-1])]
        self._highest = max(self._highest, _largest(after))
        now = median(losses[-bounds.LAST_STEPS :][-len(after) :])
        gone = np.isfinite(after[-LEAST_STEPS:]).mean() < 0.5
        doubled = leaps(self._before, self._highest)
        ill = bool(gone) or (doubled and suffers(self._before, now, self._highest))
        ill = ill and not self._climbed
        number = float(np.nanmax(ratios[-bounds.LAST_STEPS :]))
        became = "no longer a number" if gone else f"{short(now)}"
        said = (
            f"steps are too large since step {self._large}: one changes the weights by up to "
            f"{short(number)} of their norm, and the loss, which was {short(self._before)}, is "
            f"{became} by step {batch.steps[-1]}"
        )
        return [Seen(ill, self._large if ill else batch.steps[-1], "", number, said)]

    def _is_climbed(self) -> bool:
        """Whether the loss rose up to the first large step while successive gradients agreed."""
        upto = self._losses.steps <= (self._large or 0)
        losses = self._losses.values[upto, 0]
        losses = losses[np.isfinite(losses)]
        size = min(bounds.MIN_WINDOW, len(losses) // 3)
        if not size:
            return False
        before, now = float(np.median(losses[:size])), float(np.median(losses[-size:]))
        rises = now - before > (_CLIMBED - 1) * abs(before)
        return rises and median(self._cosines.values[upto, 0]) > 0

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of the last steps, and what was before the first large one."""
        return {
            "ratios": self._ratios.state_dict(),
            "weights": self._updates.state_dict(),
            "losses": self._losses.state_dict(),
            "cosines": self._cosines.state_dict(),
            "large": self._large,
            "before": _or_none(self._before),
            "highest": _or_none(self._highest),
            "climbed": self._climbed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._ratios.load_state_dict(state["ratios"])
        self._updates.load_state_dict(state.get("weights", {}))
        self._losses.load_state_dict(state["losses"])
        self._cosines.load_state_dict(state["cosines"])
        self._large = state["large"]
        self._before = float("nan") if state["before"] is None else float(state["before"])
        self._highest = float("-inf") if state["highest"] is None else float(state["highest"])
        self._climbed = bool(state.get("climbed", False))


def _cosines(rows: Mapping[str, Any], batch: Batch) -> Array:
    """The median cosine of successive gradients, by step."""
    steps, values = np.ma.getdata(rows["step"]), filled(rows["gradient_cosine"])
    return np.array([median(values[steps == step]) for step in batch.steps])


def _largest(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else float("-inf")


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
