"""Moments of many tensors in one array, without an object for each.

The moments of sixteen steps wait until they are transferred. In a deep model that would be tens of
thousands of objects, through which Python's garbage collector looks again and again. What is known
of a group of tensors before it is read is laid out once, and kept for the groups of later steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gradflow.hooks.reduction import fused
from gradflow.hooks.reduction.fused import Moments


class Geometry(NamedTuple):
    """How the loops walk through a tensor, as `compiled` says, and what `Moments` says of it."""

    elements: int
    channels: int
    run: int
    pieces: int
    batch_size: int
    has_channels: bool


class BatchLayout:
    """How the values of the tensors of a group follow each other in one array.

    Fields:
        geometries: of the tensors.
        table: [T, 5] their lines for `compiled_groups`, without addresses.
        size: the length of the array.
        ends: [T] where the values of each end in it.
        channels, elements, batch_sizes, has_channels: [T] as in `Moments`.
    """

    __slots__ = (
        "batch_sizes",
        "channels",
        "elements",
        "ends",
        "geometries",
        "has_channels",
        "size",
        "table",
    )

    def __init__(self, geometries: Sequence[Geometry]) -> None:
        self.geometries = list(geometries)
        rows = np.array(self.geometries, np.int64).reshape(-1, len(Geometry._fields))
        self.table = np.zeros((len(rows), 5), np.int64)
        self.table[:, 1:] = rows[:, :4]
        self.elements, self.channels = rows[:, 0].copy(), rows[:, 1].copy()
        self.batch_sizes, self.has_channels = rows[:, 4].copy(), rows[:, 5] != 0
        self.ends = np.cumsum(3 * self.channels + 6)
        self.size = int(self.ends[-1]) if len(rows) else 0


class Layouts:
    """The layouts of the groups of earlier steps, to be used again."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[BatchLayout]] = {}

    def of(self, geometries: list[Geometry]) -> BatchLayout:
        """Return the layout of a group of tensors."""
        known = self._by_length.get(len(geometries), ())
        for layout in known:
            # The geometries of equal shapes are the same objects, in most cases.
            if layout.geometries == geometries:
                return layout
        layout = BatchLayout(geometries)
        # A model whose groups differ at every step would have more and more.
        if len(self._by_length) >= _MOST_LENGTHS:
            self._by_length.clear()
        self._by_length[len(geometries)] = [layout, *known][:_MOST_OF_A_LENGTH]
        return layout


_MOST_LENGTHS, _MOST_OF_A_LENGTH = 256, 8


class MomentBatch:
    """The moments of the tensors of a group, in main memory or on their device.

    Fields:
        values: [layout.size] those of `Moments` for one tensor after the other.
        layout: where they are.
        magnitudes: the counts of magnitudes of each tensor; None if not asked for.
    """

    __slots__ = ("layout", "magnitudes", "values")

    def __init__(
        self,
        values: np.ndarray | Tensor,
        layout: BatchLayout,
        magnitudes: list[Tensor] | None = None,
    ) -> None:
        self.values = values
        self.layout = layout
        self.magnitudes = magnitudes

    def __len__(self) -> int:
        return len(self.layout.geometries)

    def moments(self, place: int) -> Moments:
        """The moments of one tensor."""
        of = self.layout.geometries[place]
        return Moments(
            self.values_of(place),
            of.channels,
            of.elements,
            of.batch_size,
            of.has_channels,
            None if self.magnitudes is None else self.magnitudes[place],
        )

    def values_of(self, place: int) -> np.ndarray | Tensor:
        """The values of one tensor: [3 C + 6]."""
        layout = self.layout
        end = int(layout.ends[place])
        return self.values[end - 3 * layout.geometries[place].channels - 6 : end]


class MomentTable(Mapping[str, Moments]):
    """The moments of a step's tensors by layer, most of them in batches.

    Fields:
        names: of the layers, in order.
    """

    __slots__ = ("_alone", "_batches", "_places", "_rows", "_which", "names")

    def __init__(
        self,
        names: tuple[str, ...],
        batches: Sequence[MomentBatch],
        which: np.ndarray,
        places: np.ndarray,
        alone: Mapping[int, Moments],
    ) -> None:
        self.names = names
        self._batches = batches
        # By row: the number of its batch and its place there; -1 for one that is in `_alone`.
        self._which, self._places = which, places
        self._alone = alone
        self._rows: dict[str, int] | None = None

    @classmethod
    def of(cls, store: Mapping[str, Moments]) -> "MomentTable":
        """Return a table of moments that are given one by one; itself, if it is a table."""
        if isinstance(store, MomentTable):
            return store
        return packed(store)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> Moments:
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.names)}
        return self.at(self._rows[name])

    def at(self, row: int) -> Moments:
        """The moments in a row."""
        which = self._which[row]
        return (
            self._alone[row] if which < 0 else self._batches[which].moments(int(self._places[row]))
        )

    def magnitudes(self) -> Iterator[tuple[str, Tensor]]:
        """The counts of magnitudes by layer, where there are any."""
        if self._alone or any(one.magnitudes is not None for one in self._batches):
            for row, name in enumerate(self.names):
                which = self._which[row]
                if which < 0:
                    found = self._alone[row].magnitudes
                else:
                    counts = self._batches[which].magnitudes
                    found = None if counts is None else counts[int(self._places[row])]
                if found is not None:
                    yield name, found

    def put_rows(self, rows: "_Rows", first: int) -> None:
        """Put what is known of the rows into `rows`, from row `first` on."""
        for number, batch in enumerate(self._batches):
            layout = batch.layout
            at = np.flatnonzero(self._which == number)
            places = self._places[at]
            at += first
            rows.ends[at] = rows.begin_of(batch) + layout.ends[places]
            rows.channels[at], rows.elements[at] = layout.channels[places], layout.elements[places]
            rows.batch_sizes[at] = layout.batch_sizes[places]
            rows.has_channels[at] = layout.has_channels[places]
        for row, moments in self._alone.items():
            rows.put_alone(first + row, moments)


def packed(store: Mapping[str, Any]) -> MomentTable:
    """Return the table of what is in `store`.

    An entry is `Moments`, or has `found`: these, or the batch that has them at its `place`; None,
    if they are missing: the entry is then left out.
    """
    found = [one if type(one) is Moments else one.found for one in store.values()]
    names = tuple(store)
    if any(one is None for one in found):
        return packed({n: store[n] for n, one in zip(names, found, strict=True) if one is not None})
    places = [0 if type(one) is Moments else one.place for one in store.values()]
    batches: list[MomentBatch] = []
    alone: dict[int, Moments] = {}
    which = np.empty(len(found), np.int32)
    begin = 0
    for _, same in groupby(found, id):
        end = begin + len(list(same))
        one = found[begin]
        if isinstance(one, Moments):
            which[begin:end] = -1
            alone |= dict.fromkeys(range(begin, end), one)
        else:
            which[begin:end] = _number_of(one, batches)
        begin = end
    return MomentTable(names, batches, which, np.array(places, np.int32), alone)


def _number_of(batch: MomentBatch, batches: list[MomentBatch]) -> int:
    for number, one in enumerate(batches):
        if one is batch:
            return number
    batches.append(batch)
    return len(batches) - 1


class _Rows:
    """What is known of the rows of several tables: [R], and the values that they are in."""

    def __init__(self, count: int) -> None:
        self.ends, self.channels = np.empty(count, np.int64), np.empty(count, np.int64)
        self.elements, self.batch_sizes = np.empty(count, np.int64), np.empty(count, np.int64)
        self.has_channels = np.empty(count, bool)
        self._begins: dict[int, int] = {}
        self._batches: list[MomentBatch] = []
        self._size = 0
        self._alone: list[tuple[int, Moments]] = []

    def begin_of(self, batch: MomentBatch) -> int:
        """Where the values of a batch begin."""
        begin = self._begins.get(id(batch))
        if begin is None:
            begin = self._begins[id(batch)] = self._size
            self._batches.append(batch)
            self._size += batch.layout.size
        return begin

    def put_alone(self, row: int, moments: Moments) -> None:
        """Put a row whose moments are in no batch."""
        self.channels[row], self.elements[row] = moments.channels, moments.elements
        self.batch_sizes[row], self.has_channels[row] = moments.batch_size, moments.has_channels
        self._alone.append((row, moments))

    def values(self) -> np.ndarray:
        """All values in main memory, with a single transfer; sets where those alone end."""
        parts: list[np.ndarray | Tensor] = [batch.values for batch in self._batches]
        if self._alone:
            at = np.array([row for row, _ in self._alone])
            self.ends[at] = self._size + np.cumsum(3 * self.channels[at] + 6)
            parts += [moments.values for _, moments in self._alone]
        return fused.on_host(parts)


def statistics_of(
    tables: Sequence[MomentTable],
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the `fused.to_statistics` of all rows of the tables, one table after the other.

    Then the batch size of each, and whether it has channels. At least one row must be given.
    """
    rows, first = _Rows(sum(map(len, tables))), 0
    for table in tables:
        table.put_rows(rows, first)
        first += len(table)
    flat = rows.values()
    found = fused.statistics_in(flat, rows.ends, rows.channels, rows.elements, rows.has_channels)
    return found, rows.batch_sizes, rows.has_channels
