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


class Places:
    """A place for each name, in the order in which they come.

    Fields:
        names: by place.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self._of = {name: place for place, name in enumerate(self.names)}
        self._last: tuple[NDArray[np.object_], NDArray[np.int64]] | None = None

    def of_rows(self, column: Any) -> NDArray[np.int64]:
        """The places of the names in a column of a table; new names get one."""
        names = np.ma.getdata(column)
        # Most transfers have the rows of the one before.
        if self._last is not None and np.array_equal(self._last[0], names):
            return self._last[1]
        for name in names.tolist():
            if name not in self._of:
                self._of[name] = len(self.names)
                self.names.append(name)
        places = np.fromiter((self._of[name] for name in names.tolist()), np.int64, len(names))
        self._last = names, places
        return places

    def known(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The places of `names`; -1 for what has none."""
        return np.fromiter((self._of.get(name, -1) for name in names), np.int64, len(names))


# Rules decide by the last 20 recorded steps; what was before them tells since when.
_KEPT = 64


class Window:
    """Numbers by step and name, of the last recorded steps that were given.

    With `by_name`, the last numbers of each name instead, however many steps lie between them: rows
    then are not steps.

    Fields:
        steps: the steps, oldest first: [n].
        values: [n, names]; nan where there is none.
    """

    def __init__(self, size: int = _KEPT, *, by_name: bool = False) -> None:
        self._size = size
        self._by_name = by_name
        self.steps: NDArray[np.int64] = np.zeros(0, np.int64)
        self.values: Array = np.zeros((0, 0))
        self._places = Places()

    @property
    def names(self) -> list[str]:
        """What the columns are of."""
        return self._places.names

    def add(self, steps: Sequence[int], rows: Columns, key: str, values: Array) -> None:
        """Add a row for each of `steps`; `values` are of the rows of a table, named by `key`."""
        columns = self._places.of_rows(rows[key])
        at = np.searchsorted(np.asarray(steps), np.ma.getdata(rows["step"]))
        new = np.full((len(steps), len(self.names)), np.nan)
        new[at, columns] = values
        self._push(steps, new)

    def add_one(self, steps: Sequence[int], values: Array) -> None:
        """Add a number of the whole network for each of `steps`."""
        if not self.names:
            self._places = Places([""])
        self._push(steps, values[:, None])

    def _push(self, steps: Sequence[int], new: Array) -> None:
        missing = new.shape[1] - self.values.shape[1]
        before = np.pad(self.values, ((0, 0), (0, missing)), constant_values=np.nan)
        values = np.concatenate([before, new])
        if self._by_name:  # those that are missing come first
            order = np.argsort(np.isfinite(values), axis=0, kind="stable")
            values = np.take_along_axis(values, order, axis=0)
        self.values = values[-self._size :]
        self.steps = np.concatenate([self.steps, np.asarray(steps, np.int64)])[-self._size :]

    def of(self, names: Sequence[str]) -> Array:
        """The numbers of `names`: [n, names]; nan for what was never given."""
        if not self.names:
            return np.full((len(self.steps), len(names)), np.nan)
        places = self._places.known(names)
        return np.where(places >= 0, self.values[:, places], np.nan)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes, as lists."""
        return {
            "names": list(self.names),
            "steps": self.steps.tolist(),
            "values": self.values.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._places = Places([str(name) for name in state["names"]])
        self.steps = np.array(state["steps"], np.int64)
        self.values = np.array(state["values"], float).reshape(len(self.steps), len(self.names))
