"""What a quantity was in the course of a training: a row for each layer, few columns of time."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

# The row before those of layers: the norm of all gradients together.
TOTAL = ""
MOST_COLUMNS, FEWEST_COLUMNS = 192, 32
# Of a model with very many layers, fewer columns are kept: what is sent to a browser is limited.
MOST_CELLS = 131_072
# So many of the last moments are compared when a layer is looked for that stands out.
RECENT = 16
MOST_POINTS = 200

_Array = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"


class History:
    """The mean magnitude of each row in each column of time.

    A moment is a recorded step, or an epoch. A column begins as one moment. If there would be too
    many columns, neighbours are merged two by two, and a column is the mean over twice as many.

    Args:
        is_backward: whether rows come in the order of the backward pass, as those of gradients do;
            the names are in the order of the forward pass.

    Fields:
        names: the rows but the total; new ones are appended.
        columns: of each column the first and last moment, and the epoch of the last.
        merged: how often columns were merged, or rows added: whether earlier columns have changed.
    """

    def __init__(self, *, is_backward: bool = False) -> None:
        self.names: list[str] = []
        self.columns: list[tuple[int, int, int]] = []
        self.merged = 0
        self._is_backward = is_backward
        self._places: dict[str, int] = {TOTAL: 0}
        self._sums = np.zeros((1, MOST_COLUMNS))
        self._counts = np.zeros((1, MOST_COLUMNS))
        self._recent: deque[Any] = deque(maxlen=RECENT)
        self._width = 1  # how many moments a column has
        self._filled = 0  # how many the last one has so far

    def add(self, moment: int, epoch: int, values: Mapping[str, float]) -> None:
        """Add the values of a moment by row; those of one moment may come in several calls."""
        self._add_rows([name for name in values if name not in self._places])
        if not self.columns or moment != self.columns[-1][1]:
            self._begin(moment, epoch)
        places = [self._places[name] for name in values]
        numbers = np.abs(np.fromiter(values.values(), dtype=float, count=len(values)))
        last = len(self.columns) - 1
        self._sums[places, last] += numbers
        self._counts[places, last] += 1
        self._recent[-1][places] = numbers

    def means(self, first: int, last: int) -> Any:
        """The mean magnitudes in the columns from `first` to before `last`, shape [columns, rows].

        The first row is the total. What was not recorded is masked.
        """
        counts = self._counts[:, first:last]
        # Values that are not finite stay what they are.
        with np.errstate(all="ignore"):
            means = self._sums[:, first:last] / counts
        return np.ma.array(means, mask=counts == 0).T

    def recent(self) -> Any:
        """The mean magnitude of each row but the total over the last moments, masked if none."""
        known = np.array(list(self._recent)).reshape(-1, len(self.names) + 1)[:, 1:]
        seen = ~np.isneginf(known)
        with np.errstate(all="ignore"):
            means = np.where(seen, known, 0).sum(axis=0) / seen.sum(axis=0)
        return np.ma.array(means, mask=~seen.any(axis=0))

    def _add_rows(self, names: list[str]) -> None:
        if not names:
            return
        for name in reversed(names) if self._is_backward else names:
            self._places[name] = len(self._places)
            self.names.append(name)
        more = ((0, len(names)), (0, 0))
        self._sums = np.pad(self._sums, more)
        self._counts = np.pad(self._counts, more)
        # A magnitude is not negative: -inf says that a row has none.
        self._recent = deque(
            (np.pad(one, more[0], constant_values=-np.inf) for one in self._recent), RECENT
        )
        self.merged += 1
        while len(self.columns) > self._most():
            self._merge()

    def _begin(self, moment: int, epoch: int) -> None:
        self._recent.append(np.full(len(self._places), -np.inf))
        if self.columns and self._filled < self._width:
            self._filled += 1
            self.columns[-1] = (self.columns[-1][0], moment, epoch)
            return
        if len(self.columns) >= self._most():
            self._merge()
        self.columns.append((moment, moment, epoch))
        self._filled = 1

    def _most(self) -> int:
        """How many columns there may be: an even number."""
        fitting = MOST_CELLS // len(self._places)
        return max(FEWEST_COLUMNS, min(MOST_COLUMNS, fitting // 2 * 2))

    def _merge(self) -> None:
        halves = len(self.columns) // 2
        odd = len(self.columns) % 2
        for values in (self._sums, self._counts):
            pairs = values[:, : 2 * halves].reshape(len(values), halves, 2).sum(axis=2)
            rest = values[:, 2 * halves : 2 * halves + odd].copy()
            values[:] = 0
            values[:, :halves] = pairs
            values[:, halves : halves + odd] = rest
        pairs_of = zip(self.columns[0::2], self.columns[1::2], strict=False)
        joined = [(one[0], other[1], other[2]) for one, other in pairs_of]
        self.columns = [*joined, *self.columns[2 * halves :]]
        if not odd:
            self._filled += self._width
        self._width *= 2
        self.merged += 1


class Points:
    """The points of curves by name: (moment, value); neighbours are averaged if there are many."""

    def __init__(self) -> None:
        self.by_name: dict[str, list[tuple[float, float]]] = {}

    def add(self, name: str, moment: int, value: float) -> None:
        """Add a point at the end of the curve `name`."""
        points = self.by_name.setdefault(name, [])
        points.append((moment, value))
        if len(points) > MOST_POINTS:
            pairs = zip(points[0:-1:2], points[1:-1:2], strict=False)
            joined = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairs]
            self.by_name[name] = [*joined, points[-1]]
