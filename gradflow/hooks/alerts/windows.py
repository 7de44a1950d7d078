"""The numbers of the last recorded steps by name, such as one of each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, Any]


def filled(column: Any) -> Array:
    """A column as floats; nan where it is missing."""
    return np.ma.filled(np.ma.asanyarray(column).astype(float), np.nan)


def median(values: Array) -> float:
    """The median of the finite values; nan if there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


# Rules decide by the last 20 recorded steps; what was before them tells since when.
_KEPT = 64


class Window:
    """Numbers by step and name, of the last recorded steps that were given.

    Fields:
        steps: the steps, oldest first: [n].
        names: what the columns are of.
        values: [n, names]; nan where there is none.
    """

    def __init__(self, size: int = _KEPT) -> None:
        self._size = size
        self.names: list[str] = []
        self.steps: NDArray[np.int64] = np.zeros(0, np.int64)
        self.values: Array = np.zeros((0, 0))
        self._places: dict[str, int] = {}

    def add(self, steps: Sequence[int], rows: Columns, key: str, values: Array) -> None:
        """Add a row for each of `steps`; `values` are of the rows of a table, named by `key`."""
        names = np.ma.getdata(rows[key]).tolist()
        for name in names:
            if name not in self._places:
                self._places[name] = len(self.names)
                self.names.append(name)
        at = {step: place for place, step in enumerate(steps)}
        new = np.full((len(steps), len(self.names)), np.nan)
        places = [at[step] for step in np.ma.getdata(rows["step"]).tolist()]
        new[places, [self._places[name] for name in names]] = values
        self._push(steps, new)

    def add_one(self, steps: Sequence[int], values: Array) -> None:
        """Add a number of the whole network for each of `steps`."""
        if not self.names:
            self.names, self._places = [""], {"": 0}
        self._push(steps, values[:, None])

    def _push(self, steps: Sequence[int], new: Array) -> None:
        missing = new.shape[1] - self.values.shape[1]
        before = np.pad(self.values, ((0, 0), (0, missing)), constant_values=np.nan)
        self.values = np.concatenate([before, new])[-self._size :]
        self.steps = np.concatenate([self.steps, np.asarray(steps, np.int64)])[-self._size :]

    def of(self, names: Sequence[str]) -> Array:
        """The numbers of `names`: [n, names]; nan for what was never given."""
        found = np.full((len(self.steps), len(names)), np.nan)
        for column, name in enumerate(names):
            if name in self._places:
                found[:, column] = self.values[:, self._places[name]]
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes, as lists."""
        return {
            "names": list(self.names),
            "steps": self.steps.tolist(),
            "values": self.values.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.names = [str(name) for name in state["names"]]
        self._places = {name: place for place, name in enumerate(self.names)}
        self.steps = np.array(state["steps"], np.int64)
        self.values = np.array(state["values"], float).reshape(len(self.steps), len(self.names))
