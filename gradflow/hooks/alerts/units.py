"""Values that are not finite, and dead units."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradflow.conditions import bounds
from gradflow.conditions.dead import is_dead
from gradflow.hooks.alerts.rule import LEAST_STEPS, Batch, Layers, Rule, Seen, counted, since
from gradflow.hooks.alerts.windows import Array, Window, filled
from gradflow.hooks.recording.nonfinite import first_nonfinite


class NonFinite(Rule):
    """Values that are nan or infinite; over once as many steps as decide elsewhere have none."""

    key, name = "non-finite", "values that are not finite"

    def __init__(self) -> None:
        self._clean = 0

    def look(self, batch: Batch) -> list[Seen]:
        """Whether a value of this transfer is not finite, and which is the first."""
        found = first_nonfinite(batch.tables, batch.skipped)
        if found is None:
            self._clean += len(batch.steps)
            return [Seen(False if self._clean >= bounds.LAST_STEPS else None, batch.steps[-1])]
        self._clean = 0
        what = "output" if found["direction"] == "forward" else "gradient of the output"
        said = (
            f"{counted(found['count'], 'value')} {'is' if found['count'] == 1 else 'are'} not "
            f"finite in step {found['step']}, in the {what} of "
            f"{found['layer']} ({found['direction']} pass), the first in order of execution"
        )
        return [Seen(True, found["step"], found["layer"], float(found["count"]), said)]

    def state_dict(self) -> dict[str, Any]:
        """Return since how many steps all was finite."""
        return {"clean": self._clean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._clean = int(state["clean"])


class Dead(Rule):
    """Channels of an activation layer that are 0 on every input of all the last steps."""

    key, name, bound = "dead", "dead units", bounds.DEAD

    def __init__(self) -> None:
        self._counts = Window()

    def look(self, batch: Batch) -> list[Seen]:
        """Whether more channels of some layer are dead than the bound, and than by chance."""
        rows = batch.tables.get("activations")
        if rows is None:
            return []
        self._counts.add(batch.steps, rows, "layer", filled(rows["dead_channels"]))
        names, channels = _activations(batch.layers)
        counts = self._counts.of(names)[-bounds.LAST_STEPS :]
        often = np.isfinite(counts).sum(axis=0) >= LEAST_STEPS
        if not often.any():
            return []
        names = [name for name, one in zip(names, often, strict=True) if one]
        least, total = np.nanmin(counts[:, often], axis=0), channels[often]
        ill = is_dead(least, total, bounds.DEAD)
        worst = int(np.argmax(least / total * (1 + ill)))
        own = self._counts.of([names[worst]])[:, 0]
        began = since(self._counts.steps, own >= least[worst])
        further = int(ill.sum()) - 1
        others = f"; most channels of {counted(further, 'further layer')} are too"
        count = int(least[worst])
        said = (
            f"{count} of {counted(int(total[worst]), 'channel')} of {names[worst]} "
            f"{'is' if count == 1 else 'are'} 0 on every input since step {began}"
            f"{others if further > 0 else ''}"
        )
        place = began if ill.any() else batch.steps[-1]
        share = float(least[worst] / total[worst])
        return [Seen(bool(ill.any()), place, names[worst], share, said)]

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the last steps."""
        return {"counts": self._counts.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._counts.load_state_dict(state["counts"])


def _activations(layers: Layers) -> tuple[list[str], Array]:
    """The activation layers with the number of their channels, where that is known."""
    names, channels, last = [], [], ""
    for name, role, shape in zip(layers.layer, layers.role, layers.shape, strict=True):
        if role in ("convolution", "linear"):
            last = role
        elif role == "activation":
            # After a linear layer, outputs have shape [N, T, C].
            size = shape.split("x")[0 if last == "convolution" else -1]
            if size.isdigit():
                names.append(name)
                channels.append(float(size))
    return names, np.array(channels)
