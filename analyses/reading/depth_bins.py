"""Successive layers of a deep network gathered in bins, so that each can be seen in a figure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analyses.reading.layer_groups import MANY_LAYERS, pattern_of
from analyses.wording.phrases import plural
from analyses.wording.translatable import Numeral, Said

_BAND = " Band: from the lowest to the highest of them."
LEAST_UNITS = 20  # fewer rows would show too little of the depth


@dataclass(frozen=True)
class DepthBins:
    """Bins of successive layers.

    Fields:
        places: the bin of each layer, counted from 0, in the order of the layers.
        largest: the number of layers in the largest bin; 1 if no layers are gathered.
    """

    places: npt.NDArray[np.intp]
    largest: int

    @property
    def gathered(self) -> bool:
        """Whether any bin has several layers."""
        return self.largest > 1

    @property
    def note(self) -> str:
        """A sentence for captions; "" if each layer is shown by itself."""
        if not self.gathered:
            return ""
        return Said(
            "{layers} are too many to show each: successive ones are shown together, up to {most}, "
            "by their median.",
            layers=plural(len(self.places), "layer"),
            most=Numeral(f"{self.largest}"),
        )

    def rows(self, matrix: pd.DataFrame) -> pd.DataFrame:
        """Medians over the layers of each bin; `matrix` has one row per layer, in their order.

        A bin has the label of its first layer.
        """
        if not self.gathered:
            return matrix
        medians: pd.DataFrame = matrix.groupby(self.places).median()
        medians.index = matrix.index[self._firsts()]
        return medians

    def curve(self, x: Any, values: Any) -> pd.DataFrame:
        """Columns x, value, and if layers are gathered low and high: median and range by bin.

        x of a bin is that of its first layer. Values that are missing are left out of its bin.
        """
        frame = pd.DataFrame({"x": np.asarray(x), "value": np.asarray(values, dtype=float)})
        if not self.gathered:
            return frame
        by_bin = frame["value"].groupby(self.places)
        return pd.DataFrame(
            {
                "x": frame["x"].to_numpy()[self._firsts()],
                "value": by_bin.median().to_numpy(),
                "low": by_bin.min().to_numpy(),
                "high": by_bin.max().to_numpy(),
            }
        )

    def _firsts(self) -> npt.NDArray[np.intp]:
        return np.unique(self.places, return_index=True)[1]


def depth_bins(names: Sequence[str], most: int = MANY_LAYERS) -> DepthBins:
    """Bins of the layers `names`, given in order of depth: about `most` at most.

    Up to `most` layers have a bin each. Of more, a bin holds whole blocks, so that bins are alike
    and the pattern within a block does not show as a pattern over the depth. Blocks are layers
    whose names begin alike up to a number, the outermost number that divides the layers enough.
    """
    count = len(names)
    if count <= most:
        return DepthBins(np.arange(count), 1)
    units = _units(names)
    per_bin = -(-len({place for place, _ in units}) // most)
    places, current = [], -1
    for _, run in groupby(units, key=lambda unit: unit[1]):
        # A bin ends where blocks end: an embedding is not one of them.
        previous, seen = None, 0
        for place, _ in run:
            if place != previous:
                current += seen % per_bin == 0
                seen += 1
                previous = place
            places.append(current)
    found = np.array(places)
    if found[-1] + 1 > 2 * most:  # hardly anything repeats
        found = np.arange(count) * most // count
    return DepthBins(found, int(np.bincount(found).max()))


def _units(names: Sequence[str]) -> list[tuple[int, str]]:
    """For each layer the number of its block, in order, and the pattern of the block's name."""
    parts = [name.split(".") for name in names]
    levels = [[place for place, part in enumerate(one) if part.isdigit()] for one in parts]
    deepest = max(map(len, levels))
    blocks: list[str] = list(names)
    for level in range(deepest):
        blocks = [
            ".".join(one[: numbers[level] + 1]) if len(numbers) > level else name
            for one, numbers, name in zip(parts, levels, names, strict=True)
        ]
        if sum(1 for _ in groupby(blocks)) >= LEAST_UNITS:
            break
    changes = [0, *(int(a != b) for a, b in pairwise(blocks))]
    return list(zip(np.cumsum(changes).tolist(), map(pattern_of, blocks), strict=True))


def first_note(bins: Iterable[DepthBins]) -> str:
    """The note of the first network whose layers are gathered; "" if there is none."""
    return next((one.note for one in bins if one.gathered), "")


def caption_end(bins: Iterable[DepthBins], *, with_band: bool = False) -> str:
    """What ends a caption if layers are gathered, with a space before it.

    `with_band` says that a band is drawn around their medians.
    """
    note = first_note(bins)
    return f" {note}{_BAND if with_band else ''}" if note else ""
