"""The moments of a step's tensors by layer, and the statistics of those of many steps."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gradflow.hooks.reduction.batches import MomentBatch
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.statistics import from_moments, sums


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
        of_batch = [one.magnitudes for one in self._batches]
        if not self._alone and all(one is None for one in of_batch):
            return
        rows = zip(self.names, self._which.tolist(), self._places.tolist(), strict=True)
        for row, (name, which, place) in enumerate(rows):
            if which < 0:
                found = self._alone[row].magnitudes
            else:
                counts = of_batch[which]
                found = None if counts is None else counts[place]
            if found is not None:
                yield name, found

    def is_like(self, other: "MomentTable") -> bool:
        """Whether the values of both follow each other alike: of the same layers and shapes."""
        return (
            self.names == other.names
            and list(map(_LAYOUT, self._batches)) == list(map(_LAYOUT, other._batches))
            and np.array_equal(self._which, other._which)
            and np.array_equal(self._places, other._places)
            and list(self._alone) == list(other._alone)
            and all(map(_are_alike, self._alone.values(), other._alone.values()))
        )

    def alone(self) -> list[Moments]:
        """The moments that are in no batch, in the order of their rows."""
        return list(self._alone.values())

    def place(self) -> "Placed":
        """Find what is where in the values of this table, and of those that are like it."""
        return Placed(self._batches, self._which, self._places, self._alone)

    def values_in_batches(self) -> list[np.ndarray | Tensor]:
        """The values of the tensors of each batch."""
        return [batch.values for batch in self._batches]


_LAYOUT = attrgetter("layout")


def _are_alike(moments: Moments, other: Moments) -> bool:
    return (
        moments.channels == other.channels
        and moments.elements == other.elements
        and moments.batch_size == other.batch_size
        and moments.has_channels == other.has_channels
    )


def packed(store: Mapping[str, Any]) -> MomentTable:
    """Return the table of what is in `store`: see `packed_in_order`."""
    return packed_in_order(tuple(store), list(store.values()))


def packed_in_order(names: tuple[str, ...], entries: list[Any]) -> MomentTable:
    """Return the table of `entries` by `names`.

    An entry is `Moments`, or has `found`: these, or the batch that has them at its `place`; None,
    if they are missing: the entry is then left out, as one that is None itself.
    """
    kinds = set(map(type, entries))
    if type(None) in kinds:
        return packed({n: one for n, one in zip(names, entries, strict=True) if one is not None})
    if Moments in kinds:
        found = [one if type(one) is Moments else one.found for one in entries]
        places = [0 if type(one) is Moments else one.place for one in entries]
    else:
        found, places = list(map(_FOUND, entries)), list(map(_PLACE, entries))
    count = len(found)
    identities = np.fromiter(map(id, found), np.int64, count)
    if (identities == id(None)).any():
        zipped = zip(names, entries, found, strict=True)
        return packed({name: one for name, one, has in zipped if has is not None})
    batches: list[MomentBatch] = []
    alone: dict[int, Moments] = {}
    which = np.full(count, -1, np.int32)
    # Those of one batch follow each other, in most cases.
    changes = np.flatnonzero(identities[1:] != identities[:-1]) + 1
    for begin, end in pairwise([0, *changes.tolist(), count] if count else ()):
        one: Any = found[begin]
        if type(one) is Moments:
            alone |= dict.fromkeys(range(begin, end), one)
        else:
            which[begin:end] = _number_of(one, batches)
    return MomentTable(names, batches, which, np.array(places, np.int32), alone)


_FOUND, _PLACE = attrgetter("found"), attrgetter("place")


def _number_of(batch: MomentBatch, batches: list[MomentBatch]) -> int:
    for number, one in enumerate(batches):
        if one is batch:
            return number
    batches.append(batch)
    return len(batches) - 1


class Placed:
    """What is where in a table: of tables that are alike, it is found once.

    Fields:
        channels, elements, batch_sizes, has_channels: [R] as in `Moments`; elements in float64.
        in_batches: of each batch, its rows in the table, and where their values end in the batch.
        rows_alone, ends_alone: rows of the moments that are in no batch, and where their values
            end if they follow each other.
    """

    def __init__(
        self,
        batches: Sequence[MomentBatch],
        which: np.ndarray,
        places: np.ndarray,
        alone: Mapping[int, Moments],
    ) -> None:
        count = len(which)
        self.channels, self.elements = np.empty(count, np.int64), np.empty(count)
        self.batch_sizes, self.has_channels = np.empty(count, np.int64), np.empty(count, bool)
        self.in_batches = []
        for number, batch in enumerate(batches):
            layout, rows = batch.layout, np.flatnonzero(which == number)
            at = places[rows]
            self.in_batches.append((rows, layout.ends[at]))
            self.channels[rows], self.elements[rows] = layout.channels[at], layout.elements[at]
            self.batch_sizes[rows] = layout.batch_sizes[at]
            self.has_channels[rows] = layout.has_channels[at]
        self.rows_alone = np.array(list(alone), np.int64)
        for row, moments in alone.items():
            self.channels[row], self.elements[row] = moments.channels, moments.elements
            self.batch_sizes[row] = moments.batch_size
            self.has_channels[row] = moments.has_channels
        self.ends_alone = np.cumsum(3 * self.channels[self.rows_alone] + 6)

    def put_sums(self, table: MomentTable, first: int, out: np.ndarray) -> "list[LeftOut]":
        """Write the sums of the tensors of `table` to `out`, from `first` on.

        Return what is left out, since it is on a device.
        """
        left_out: list[LeftOut] = []
        for values, (rows, ends) in zip(table.values_in_batches(), self.in_batches, strict=True):
            if isinstance(values, Tensor):
                left_out.append(LeftOut([values], ends, rows + first))
            else:
                self._put(values, ends, rows, first, out)
        alone = [moments.values for moments in table.alone()]
        if any(isinstance(one, Tensor) for one in alone):
            left_out.append(LeftOut(alone, self.ends_alone, self.rows_alone + first))
        elif alone:
            self._put(np.concatenate(alone), self.ends_alone, self.rows_alone, first, out)
        return left_out

    def _put(
        self, values: np.ndarray, ends: np.ndarray, rows: np.ndarray, first: int, out: np.ndarray
    ) -> None:
        counts, elements = self.channels[rows], self.elements[rows]
        sums.put(values, ends, counts, elements, rows + first, out)


class LeftOut(NamedTuple):
    """Values on a device, one after the other, of some rows of all tables.

    Fields:
        values: in parts.
        ends: [n] where those of each row end.
        rows: [n] the rows.
    """

    values: list[np.ndarray | Tensor]
    ends: np.ndarray
    rows: np.ndarray


def _sums_on_device(
    left_out: Sequence[LeftOut], channels: np.ndarray, elements: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of what is left out, and their sums, with a single transfer."""
    starts = np.cumsum([0] + [sum(map(len, one.values)) for one in left_out])
    rows = np.concatenate([one.rows for one in left_out])
    ends = np.concatenate([one.ends + at for one, at in zip(left_out, starts, strict=False)])
    flat = from_moments.on_host([part for one in left_out for part in one.values])
    return rows, from_moments.sums_in(flat, ends, channels[rows], elements[rows])


def statistics_of(
    tables: Sequence[MomentTable],
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the `from_moments.to_statistics` of all rows of the tables, one table after the other.

    Then the batch size of each, and whether it has channels. At least one row must be given.
    """
    placed: list[Placed] = []
    for number, table in enumerate(tables):
        as_before = number and table.is_like(tables[number - 1])
        placed.append(placed[-1] if as_before else table.place())
    found = np.empty((from_moments.SUMS, sum(map(len, tables))))
    first = 0
    left_out: list[LeftOut] = []
    for table, one in zip(tables, placed, strict=True):
        left_out += one.put_sums(table, first, found)
        first += len(table)
    channels, elements, batch_sizes, has_channels = (
        np.concatenate([getattr(one, name) for one in placed])
        for name in ("channels", "elements", "batch_sizes", "has_channels")
    )
    if left_out:
        rows, sums_there = _sums_on_device(left_out, channels, elements)
        found[:, rows] = sums_there
    statistics = from_moments.statistics_from(found, channels, elements, has_channels)
    return statistics, batch_sizes, has_channels
