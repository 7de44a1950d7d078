"""Gradients that vanish or explode on their way to the input."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gradflow.conditions import bounds
from gradflow.conditions.depth import MIN_LAYERS, factor_range
from gradflow.hooks.alerts.rule import Batch, Layers, Rule, Seen, judged, short, since
from gradflow.hooks.alerts.windows import Array, Window, filled, median

_WEIGHTED = ("convolution", "linear")


class Flow(Rule):
    """The factor of the gradient norm from the last place along the trunk to the first.

    The places are those of the health check: the outputs of modules that add a skip and of layers
    with weights outside of them; without residual additions, the layers with weights; and if the
    forward of the model itself adds, the inputs of the additions.
    """

    above: ClassVar[bool] = False

    def __init__(self) -> None:
        self._gradients, self._inputs = Window(), Window()
        self._projections: list[str] = []

    def look(self, batch: Batch) -> list[Seen]:
        """Whether the factor lies beyond the bound in the last steps."""
        assert self.bound is not None
        self._take(batch)
        found = self._places(batch.layers)
        if found is None:
            return []
        first, steps, norms, stage, sizes = found
        small, large = factor_range(norms, stage, sizes)
        factor = small if self.above else large
        with np.errstate(invalid="ignore"):
            beyond = factor > self.bound if self.above else factor < self.bound
        known = np.isfinite(factor)
        ill = judged(beyond, known)
        number = median(factor[-bounds.LAST_STEPS :])
        began = since(steps, beyond & known)
        said = (
            f"gradients {'explode' if self.above else 'vanish'} toward the input since step "
            f"{began}: from the last layer to {first} their norm changes by a factor of "
            f"{short(number)}"
        )
        return [Seen(ill, began if ill else int(steps[-1]), first, number, said)]

    def state_dict(self) -> dict[str, Any]:
        """Return the norms of the last steps."""
        return {
            "gradients": self._gradients.state_dict(),
            "inputs": self._inputs.state_dict(),
            "projections": list(self._projections),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._gradients.load_state_dict(state["gradients"])
        self._inputs.load_state_dict(state["inputs"])
        self._projections = list(state["projections"])

    def _take(self, batch: Batch) -> None:
        steps = batch.steps
        if (rows := batch.tables.get("gradients")) is not None:
            self._gradients.add(steps, rows, "layer", filled(rows["norm"]))
        if (rows := batch.tables.get("junctions")) is not None:
            self._inputs.add(steps, rows, "layer", filled(rows["input_gradient_norm"]))
            kinds = zip(rows["layer"].data, rows["skip_type"].data, strict=True)
            new = {name for name, kind in kinds if kind == "projection"}
            self._projections += [name for name in new if name not in self._projections]

    def _places(self, layers: Layers) -> tuple[str, Any, Array, Array, Array | None] | None:
        """Name of the first place, steps, norms, stages and sizes of the places; or None."""
        additions = self._inputs.names
        adding = {re.sub(r"[+#]\d+$", "", name) for name in additions}
        if adding and not adding <= set(layers.layer):
            if len(additions) < MIN_LAYERS:
                return None
            kinds = np.array([name in self._projections for name in additions])
            stage = (np.cumsum(kinds) - kinds).astype(float)
            return additions[0], self._inputs.steps, self._inputs.values, stage, None
        places = _trunk(layers, adding) if adding else _weighted(layers)
        norms = self._gradients.of([layers.layer[place] for place in places])
        shown = np.flatnonzero(np.isfinite(norms).any(axis=0))
        places = [places[column] for column in shown]
        if len(places) < 2:
            return None
        stage = np.array([layers.stage[place] for place in places], dtype=float)
        sizes = [np.prod([int(n) for n in layers.shape[place].split("x")]) for place in places]
        first = layers.layer[places[0]]
        return first, self._gradients.steps, norms[:, shown], stage, np.array(sizes, dtype=float)


class Vanishing(Flow):
    """Gradients that vanish toward the input."""

    key, name, bound = "vanishing", "vanishing gradients", bounds.VANISHING


class Exploding(Flow):
    """Gradients that explode toward the input."""

    key, name, bound, above = "exploding", "exploding gradients", bounds.EXPLODING, True


def _trunk(layers: Layers, adding: set[str]) -> list[int]:
    """Places of the modules that add a skip, and of the weighted layers outside of them."""
    inside = tuple(f"{one}." for one in adding)
    return [
        place
        for place, (name, role) in enumerate(zip(layers.layer, layers.role, strict=True))
        if name in adding or (role in _WEIGHTED and not name.startswith(inside))
    ]


def _weighted(layers: Layers) -> list[int]:
    """Places of the convolutions; if there are too few, of the linear layers; by depth."""
    chosen: list[int] = []
    for role in _WEIGHTED:
        chosen = [place for place, one in enumerate(layers.role) if one == role]
        if len(chosen) >= MIN_LAYERS:
            break
    return sorted(chosen, key=lambda place: layers.depth[place])
