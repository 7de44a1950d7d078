"""Keeps the rows of the last steps until it is known whether a spike follows, then drops them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradflow.conditions.spikes import History
from gradflow.hooks.recording.records import Columns, concatenate

_KEPT_ALWAYS = ("modes",)  # a row tells a change, which later rows rely on


class SpikeRing:
    """The rows of the last steps, of which those around a spike are written, wanted or not.

    A step spikes if its loss, or its gradient norm, is far above its own last values; see
    `gradflow.conditions.spikes`. Rows come with each transfer: those of a step are let go once the
    `reach` steps after it are known, either to be written or to nowhere.

    Args:
        reach: how many steps before a spike, and after it, are written.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._tables: dict[str, Columns] = {}
        self._wanted: dict[int, bool] = {}  # of the steps held, in order
        self._spikes: dict[int, tuple[str, float]] = {}
        self._history = History()

    @property
    def start(self) -> int | None:
        """The first step whose rows are held; None if there is none."""
        return next(iter(self._wanted), None)

    def take(self, tables: Mapping[str, Columns], wanted: Sequence[bool]) -> dict[str, Columns]:
        """Take the rows of a transfer, and whether each step is to be written in any case.

        Returns the rows of steps about which it is known now, with those to be written only.
        """
        steps = np.ma.getdata(tables["steps"]["step"]).tolist()
        self._look(steps, tables["steps"])
        self._wanted |= dict(zip(steps, wanted, strict=True))
        for name, columns in tables.items():
            held = self._tables.get(name)
            self._tables[name] = columns if held is None else concatenate([held, columns])
        return self._let_go(max(self._wanted, default=0) - self._reach)

    def rest(self) -> dict[str, Columns]:
        """Decide about all rows that are held, and return those to be written."""
        return self._let_go(max(self._wanted, default=0))

    def state_dict(self) -> dict[str, Any]:
        """Return the last losses and gradient norms, and the last spike."""
        return {
            "history": self._history.state_dict(),
            "spikes": {step: list(one) for step, one in self._spikes.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; nothing, if it is empty."""
        self._history.load_state_dict(state.get("history", {}))
        self._spikes = {
            int(step): (str(one[0]), float(one[1])) for step, one in state.get("spikes", {}).items()
        }

    def _look(self, steps: Sequence[int], columns: Columns) -> None:
        skipped = np.ma.filled(np.ma.asanyarray(columns["skipped"]), False).astype(bool)
        for place, step in enumerate(steps):
            if skipped[place]:
                continue
            loss, norm = (_known(columns[name][place]) for name in ("loss", "gradient_norm"))
            found = self._history.look(loss, norm)
            if found.left:
                self._spikes[step] = found.left, min(found.score, float(np.finfo(float).max))

    def _let_go(self, last: int) -> dict[str, Columns]:
        """The rows to be written of the steps held up to `last`; none of them are held then."""
        over = [step for step in self._wanted if step <= last]
        kept = {step for step in over if self._wanted.pop(step)}
        around = {step: near for step in over if (near := self._nearest(step)) is not None}
        found = {}
        for name, columns in list(self._tables.items()):
            steps = np.ma.getdata(columns["step"])
            chosen = {*around} if name == "spikes" else {*kept, *around}
            write = np.isin(steps, list(chosen)) if name not in _KEPT_ALWAYS else steps <= last
            if write.any():
                found[name] = _rows(columns, write & (steps <= last))
            later = steps > last
            if later.any():
                self._tables[name] = _rows(columns, later)
            else:
                del self._tables[name]
        if "spikes" in found:
            self._tell(found["spikes"], around)
        old = [step for step in self._spikes if step < last - 2 * self._reach]
        for step in old:
            del self._spikes[step]
        return found

    def _nearest(self, step: int) -> int | None:
        near = [one for one in self._spikes if abs(one - step) <= self._reach]
        return min(near, key=lambda one: (abs(one - step), one), default=None)

    def _tell(self, rows: Columns, around: Mapping[int, int]) -> None:
        spikes = [around[step] for step in np.ma.getdata(rows["step"]).tolist()]
        rows["spike"] = np.ma.array(spikes)
        quantities = np.empty(len(spikes), dtype=object)
        quantities[:] = [self._spikes[step][0] for step in spikes]
        rows["quantity"] = np.ma.array(quantities)
        rows["spreads"] = np.ma.array([self._spikes[step][1] for step in spikes])


def _known(value: Any) -> float | None:
    return None if value is np.ma.masked else float(value)


def _rows(columns: Columns, chosen: NDArray[np.bool_]) -> Columns:
    return {name: values[chosen] for name, values in columns.items()}
