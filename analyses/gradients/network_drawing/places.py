"""The position of each part of a drawn network, in points from the top left corner."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyses.gradients.network_drawing.layout import Layout

MAX_IN_COLUMN = 22
WIDTH = 482.4  # of the text column of a page
HEIGHT = 512.0  # largest height of a drawing without its legend
PITCH = 34.0  # largest distance from box to box
TOP, BOTTOM = 34.0, 26.0  # room for the network's name and the input, and for the loss
SKIP_SPACING = 6.0  # between the ends of two skips at the same box
BOX_SHARE = 0.37  # height of a box over the distance from box to box


@dataclass(frozen=True)
class BoxPlace:
    """The position of a box: its column, and the heights of its upper and lower edge."""

    column: int
    top: float
    bottom: float


@dataclass(frozen=True)
class Places:
    """The positions of all parts of one network.

    Fields:
        boxes: the position of each box.
        forks: the height at which each skip leaves the trunk, above its first box.
        sums: the height at which each skip is added, below its last box.
        columns: first and last box of each column.
        height: height of the whole drawing, in points.
    """

    boxes: tuple[BoxPlace, ...]
    forks: tuple[float, ...]
    sums: tuple[float, ...]
    columns: tuple[tuple[int, int], ...]
    height: float


def columns_of(layout: Layout, most: int = MAX_IN_COLUMN) -> list[tuple[int, int]]:
    """First and last box of each column of at most `most` boxes, split best between stages."""
    count = len(layout.boxes)
    columns, first = [], 0
    for left in range(-(-count // most), 0, -1):
        ideal = first + -(-(count - first) // left)
        nearby = range(max(first + 1, ideal - 4), min(ideal + 4, first + most, count) + 1)
        end = (
            count if left == 1 else min(nearby, key=lambda end: _split_penalty(layout, end, ideal))
        )
        columns.append((first, end - 1))
        first = end
    return columns


def _split_penalty(layout: Layout, end: int, ideal: int) -> int:
    """A penalty for ending a column before box `end`: the column with the smallest is chosen."""
    inside = layout.stage_of(end - 1) == layout.stage_of(end) if end < len(layout.boxes) else False
    crossing = sum(skip.start < end <= skip.end for skip in layout.skips)
    return abs(end - ideal) + 3 * inside + 3 * crossing


def places_of(layout: Layout, columns: Sequence[tuple[int, int]], pitch: float) -> Places:
    """The positions of the parts of `layout`, with boxes `pitch` points apart."""
    spots: list[BoxPlace] = []
    forks, sums = [0.0] * len(layout.skips), [0.0] * len(layout.skips)
    box, gap = BOX_SHARE * pitch, (1 - BOX_SHARE) * pitch
    height = 0.0
    for column, (first, last) in enumerate(columns):
        y = TOP
        for place in range(first, last + 1):
            starting = [k for k, skip in enumerate(layout.skips) if skip.start == place]
            ending = [k for k, skip in enumerate(layout.skips) if skip.end == place]
            y += SKIP_SPACING * max(0, len(starting) - 1)
            # The innermost skip leaves last and is added first.
            for level, k in enumerate(sorted(starting, key=lambda k: layout.skips[k].end)):
                forks[k] = y - 0.64 * gap - SKIP_SPACING * level
            spots.append(BoxPlace(column, y, y + box))
            for level, k in enumerate(sorted(ending, key=lambda k: -layout.skips[k].start)):
                sums[k] = y + box + 0.15 * gap + SKIP_SPACING * level
            y += pitch + SKIP_SPACING * max(0, len(ending) - 1)
        height = max(height, y - gap + BOTTOM)
    return Places(tuple(spots), tuple(forks), tuple(sums), tuple(columns), height)


def pitch_of(layouts: Sequence[Layout], columns: Sequence[Sequence[tuple[int, int]]]) -> float:
    """The distance between boxes at which the tallest column just fits."""
    fitting = [PITCH]
    for layout, parts in zip(layouts, columns, strict=True):
        for first, last in parts:
            inside = [s for s in layout.skips if s.start != s.end]
            levels = sum((first <= s.start <= last) + (first <= s.end <= last) for s in inside)
            fitting.append((HEIGHT - TOP - BOTTOM - SKIP_SPACING * levels) / (last - first + 1))
    return max(min(fitting), 12.0)
