"""Moments of many tensors in one array, without an object for each.

The moments of sixteen steps wait until they are transferred. In a deep model that would be tens of
thousands of objects, through which Python's garbage collector looks again and again. What is known
of a group of tensors before it is read is laid out once, and kept for the groups of later steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gradflow.hooks.reduction.moments import Moments


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
