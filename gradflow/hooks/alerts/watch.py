"""Watches the numbers of a training, and says when conditions begin and end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradflow.hooks.alerts.alert import Alert
from gradflow.hooks.alerts.gradients import Exploding, Vanishing
from gradflow.hooks.alerts.loss import NotLearning, Spiking
from gradflow.hooks.alerts.rule import Batch, Layers, Rule, Seen
from gradflow.hooks.alerts.steps import Overshooting
from gradflow.hooks.alerts.units import Dead, NonFinite
from gradflow.hooks.alerts.updates import Clipped, Disconnected, Extremes, NotUpdated, Stalled
from gradflow.hooks.alerts.windows import Columns


class Watch:
    """The rules of all conditions that are looked at while a model trains.

    Args:
        layers: gives the columns of the table `layers`, of the layers observed so far.
        moving: whether the loss need not fall, for what it asks for moves.
        turns: after how many recorded steps the update of a parameter is measured again.
    """

    def __init__(
        self,
        layers: Callable[[], Mapping[str, Sequence[Any]]],
        *,
        moving: bool = False,
        turns: int = 1,
    ) -> None:
        extremes = Extremes()
        self._rules: tuple[Rule, ...] = (
            NonFinite(),
            Disconnected(extremes),
            NotUpdated(extremes),
            Vanishing(),
            Exploding(),
            Dead(),
            Overshooting(turns),
            Stalled(turns),
            Clipped(turns),
            Spiking(),
            *(() if moving else (NotLearning(),)),
        )
        self._layers = layers
        self._known = Layers()
        self._since: dict[str, int] = {}

    def look(self, tables: Mapping[str, Columns]) -> list[Alert]:
        """Take the rows of a transfer, by table; return what begins or ends."""
        steps = np.ma.getdata(tables["steps"]["step"]).tolist()
        if not steps:
            return []
        skipped = np.ma.filled(tables["steps"]["skipped"], False).astype(bool)
        over = frozenset(step for step, one in zip(steps, skipped, strict=True) if one)
        columns = self._layers()
        self._known = Layers(**{name: columns[name] for name in Layers.__dataclass_fields__})
        batch = Batch(tables, steps, over, self._known)
        found = []
        for rule in self._rules:
            for seen in rule.look(batch):
                alert = self._changed(rule, seen, steps[-1])
                if alert is not None:
                    found.append(alert)
        return sorted(found, key=lambda one: one.step)

    def _changed(self, rule: Rule, seen: Seen, last: int) -> Alert | None:
        begins = seen.ill is True and rule.key not in self._since
        ends = seen.ill is False and rule.key in self._since
        if begins:
            self._since[rule.key] = seen.step
            sentence = f"{seen.said} [{rule.key}]"
        elif ends:
            since = self._since.pop(rule.key)
            sentence = f"no longer, as of step {seen.step}: {rule.name} [{rule.key}], seen since "
            sentence += f"step {since}"
        else:
            return None
        number = float(np.nan_to_num(seen.number))  # JSON, where alerts are kept, has no infinity
        return Alert(rule.key, begins, seen.step, last, seen.layer, number, rule.bound, sentence)

    def state_dict(self) -> dict[str, Any]:
        """Return what holds, and what each rule keeps: numbers, names, lists of them."""
        return {
            "since": dict(self._since),
            "rules": {rule.key: rule.state_dict() for rule in self._rules},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._since = {str(key): int(step) for key, step in state.get("since", {}).items()}
        kept = state.get("rules", {})
        for rule in self._rules:
            if rule.key in kept:
                rule.load_state_dict(kept[rule.key])
