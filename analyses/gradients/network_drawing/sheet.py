"""Draws networks side by side on a sheet, with arrow widths that show the gradient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.path import Path

from analyses.gradients.network_drawing import marks
from analyses.gradients.network_drawing.boxes import Stage
from analyses.gradients.network_drawing.flows import Arrow, Flows
from analyses.gradients.network_drawing.legend import draw_legend
from analyses.gradients.network_drawing.marks import TIMES, Scale, factor_text, shortened, times
from analyses.gradients.network_drawing.places import WIDTH, Places, columns_of, pitch_of, places_of
from analyses.plotting import theme

MAX_COLUMNS = 4
LEGEND_HEIGHT = 40.0  # points
# By number of columns: width of a stage's label, half the width of a box, reach of a skip to the
# right, font size in boxes, font size of labels.
_MEASURES = {
    1: (84.0, 30.0, 62.0, 6.8, 6.8),
    2: (84.0, 30.0, 62.0, 6.8, 6.8),
    3: (44.0, 27.0, 46.0, 6.2, 6.0),
    4: (33.0, 23.0, 38.0, 5.4, 5.4),
}
_LETTER_WIDTH = 0.6  # width of a letter over the font size
_NESTED_REACH = 11.0  # additional reach of a skip over other skips


@dataclass(frozen=True)
class Piece:
    """The part of an arrow within one column: its line, and the position of its head if any."""

    gid: str
    path: Path
    head: tuple[float, float] | None


@dataclass(frozen=True)
class Sheet:
    """Networks side by side; `first` has the number of the first column of each."""

    flows: tuple[Flows, ...]
    places: tuple[Places, ...]
    first: tuple[int, ...]
    columns: int

    @property
    def height(self) -> float:
        """Height of the drawing without the legend, in points."""
        return max(places.height for places in self.places)

    def left(self, network: int, column: int) -> float:
        """The left edge of a network's column; a single column is centred."""
        if self.columns == 1:
            return WIDTH / 4
        return (self.first[network] + column) * WIDTH / self.columns

    @property
    def column_width(self) -> float:
        """Width of a column in points."""
        return WIDTH / max(self.columns, 2)


def sheets_of(flows: Sequence[Flows]) -> list[Sheet]:
    """The networks in order, on sheets of up to `MAX_COLUMNS` columns."""
    groups: list[list[Flows]] = []
    free = 0
    for one in flows:
        needed = len(columns_of(one.layout))
        if needed > free:
            groups.append([])
            free = MAX_COLUMNS
        groups[-1].append(one)
        free -= needed
    return [_sheet(group) for group in groups]


def _sheet(flows: Sequence[Flows]) -> Sheet:
    columns = [columns_of(one.layout) for one in flows]
    pitch = pitch_of([one.layout for one in flows], columns)
    first = [sum(len(other) for other in columns[:place]) for place in range(len(columns))]
    return Sheet(
        flows=tuple(flows),
        places=tuple(
            places_of(one.layout, parts, pitch) for one, parts in zip(flows, columns, strict=True)
        ),
        first=tuple(first),
        columns=min(sum(len(parts) for parts in columns), MAX_COLUMNS),
    )


def pieces(sheet: Sheet, network: int, arrow: Arrow) -> list[Piece]:
    """The pieces of an arrow, one for each column that it passes."""
    stem = f"n{network}-{arrow.kind}{arrow.place}"
    if arrow.kind == "skip":
        parts = list(_skip(sheet, network, arrow.place))
    else:
        parts = [_upward(sheet, network, arrow)]
    return [
        Piece(stem if place == 0 else f"{stem}-{place}", path, head)
        for place, (path, head) in enumerate(parts)
    ]


def stage_gid(network: int, stage: int) -> str:
    """The SVG id of the label with the change of the gradient over a stage."""
    return f"n{network}-stage{stage}"


def _centre(sheet: Sheet, network: int, column: int) -> float:
    label, half, *_ = _MEASURES[sheet.columns]
    return sheet.left(network, column) + label + half + 8


PathAndHead = tuple[Path, tuple[float, float] | None]


def _upward(sheet: Sheet, network: int, arrow: Arrow) -> PathAndHead:
    """Line and head of a trunk, from below its box, or of a branch, upward from its first box."""
    layout, places = sheet.flows[network].layout, sheet.places[network]
    if arrow.kind == "branch":
        skip = layout.skips[arrow.place]
        spot = places.boxes[skip.start]
        inner = [
            places.forks[k]
            for k, other in enumerate(layout.skips)
            if other.start == skip.start and other.end < skip.end
        ]
        start, end = min(inner, default=spot.top), places.forks[arrow.place]
        nested = bool(inner)
    else:
        spot = places.boxes[arrow.place]
        start, end, nested = _trunk_start(sheet, network, arrow.place), spot.bottom, False
    x = _centre(sheet, network, spot.column)
    pointed = not nested and (start - end > 8 or arrow.kind == "branch")
    return marks.straight(x, start, end), (x, end + 3.0) if pointed else None


def _trunk_start(sheet: Sheet, network: int, box: int) -> float:
    """The height at which the trunk below a box starts: the next fork, the next box or the loss."""
    layout, places = sheet.flows[network].layout, sheet.places[network]
    spot = places.boxes[box]
    if box + 1 == len(places.boxes) or places.boxes[box + 1].column != spot.column:
        return spot.bottom + 17
    forks = [places.forks[k] for k, skip in enumerate(layout.skips) if skip.start == box + 1]
    return min(forks, default=places.boxes[box + 1].top)


def _skip(sheet: Sheet, network: int, skip: int) -> Iterator[PathAndHead]:
    layout, places = sheet.flows[network].layout, sheet.places[network]
    start, end = layout.skips[skip].start, layout.skips[skip].end
    first, last = places.boxes[start].column, places.boxes[end].column
    reach = _MEASURES[sheet.columns][2] + _NESTED_REACH * _nesting(sheet, network, skip)
    fork, added = places.forks[skip], places.sums[skip]
    for column in range(last, first - 1, -1):
        x = _centre(sheet, network, column)
        if start == end:
            yield marks.arc(x, added, fork, reach), (x + reach, (added + fork) / 2)
            return
        top = places.boxes[places.columns[column][0]].top - 16
        bottom = places.boxes[places.columns[column][1]].bottom + 16
        above = fork if column == first else top
        below = added if column == last else bottom
        middle = (above + below) / 2
        parts = []
        if column == last:
            parts.append(marks.quarter(x, below, reach, 14, middle))
        else:
            parts.append(marks.straight(x + reach, below, middle))
        if column == first:
            parts.append(marks.quarter(x, above, reach, -14, middle))
        else:
            parts.append(marks.straight(x + reach, above, middle))
        yield Path.make_compound_path(*parts), (x + reach, middle)


def _nesting(sheet: Sheet, network: int, skip: int) -> int:
    """How many levels of skips are nested within a skip."""
    skips = sheet.flows[network].layout.skips
    mine = skips[skip]
    inside = [
        k for k, other in enumerate(skips)
        if mine.start <= other.start and other.end <= mine.end
        and (other.end - other.start) < (mine.end - mine.start)
    ]  # fmt: skip
    return 1 + max(_nesting(sheet, network, k) for k in inside) if inside else 0


@theme.themed
def draw_sheet(sheet: Sheet, scale: Scale, epoch: int) -> Drawing:
    """Draw the networks of `sheet` with the gradient of `epoch`, and a legend below."""
    total = sheet.height + LEGEND_HEIGHT
    figure = Drawing(figsize=(theme.WIDTH, total / 72))
    ground = figure.add_axes((0, LEGEND_HEIGHT / total, 1, sheet.height / total))
    marks.prepare_sheet(ground, WIDTH, sheet.height)
    for network, flows in enumerate(sheet.flows):
        _draw_stages(ground, sheet, network, epoch)
        _draw_boxes(ground, sheet, network)
        for row, arrow in enumerate(flows.arrows):
            width = scale.width(float(flows.relative[epoch].iloc[row]))
            for piece in pieces(sheet, network, arrow):
                marks.line(ground, piece.path, arrow.kind, width, piece.gid)
                if piece.head is not None:
                    marks.head(ground, *piece.head, arrow.kind, width, f"{piece.gid}-head")
    key = figure.add_axes((0, 0, 1, LEGEND_HEIGHT / total))
    marks.prepare_sheet(key, WIDTH, LEGEND_HEIGHT)
    draw_legend(key, scale, with_skips=any(one.layout.skips for one in sheet.flows))
    return figure


def _draw_stages(axis: Axes, sheet: Sheet, network: int, epoch: int) -> None:
    flows = sheet.flows[network]
    for place, stage in enumerate(flows.layout.stages):
        parts = [
            (max(first, stage.first), min(last, stage.last), column)
            for column, (first, last) in enumerate(sheet.places[network].columns)
        ]
        for first, last, column in [part for part in parts if part[0] <= part[1]]:
            top, bottom = _band_edges(sheet, network, first, last)
            left = sheet.left(network, column)
            marks.band(axis, left, left + sheet.column_width - 8, top, bottom)
            if first == stage.first:
                said = factor_text(flows.factor(place)[epoch]) if stage.last > stage.first else ""
                _label_stage(axis, sheet, (left + 5, top), stage, said, stage_gid(network, place))


def _band_edges(sheet: Sheet, network: int, first: int, last: int) -> tuple[float, float]:
    """Upper and lower edge of the background behind the boxes `first` to `last` of one column."""
    places = sheet.places[network]
    starts = {start for start, _ in places.columns}
    ends = {end for _, end in places.columns}
    top = (
        _top_with_skips(sheet, network, first) - 2.5
        if first in starts
        else _stage_top(sheet, network, first)
    )
    bottom = (
        places.boxes[last].bottom + 9 if last in ends else _stage_top(sheet, network, last + 1) - 2
    )
    return top, bottom


def _top_with_skips(sheet: Sheet, network: int, box: int) -> float:
    """The height of the highest skip that leaves above a box; without skips, its upper edge."""
    layout, places = sheet.flows[network].layout, sheet.places[network]
    forks = [places.forks[k] for k, skip in enumerate(layout.skips) if skip.start == box]
    return min([*forks, places.boxes[box].top])


def _stage_top(sheet: Sheet, network: int, box: int) -> float:
    """The height of the border above the stage that starts with box `box`."""
    layout, places = sheet.flows[network].layout, sheet.places[network]
    forks = [
        places.forks[k]
        for k, skip in enumerate(layout.skips)
        # The gradient at the input of this box is relative to this stage's end already.
        if skip.start == box and skip.shape_box is not None and skip.shape_box >= box
    ]
    return min(forks, default=places.boxes[box].top) - 2.5


def _label_stage(
    axis: Axes, sheet: Sheet, corner: tuple[float, float], stage: Stage, factor: str, gid: str
) -> None:
    size = _MEASURES[sheet.columns][4]
    x, y = corner
    y += size * 0.9
    if stage.name:
        marks.text(axis, x, y, shortened(stage.name, 15), size, ha="left", weight="bold")
        y += size * 1.25
    marks.text(axis, x, y, times(stage.shape), size, ha="left")
    if factor:
        y += size * 1.25
        marks.text(axis, x, y, factor, size, ha="left", gid=gid)


def _draw_boxes(axis: Axes, sheet: Sheet, network: int) -> None:
    flows, places = sheet.flows[network], sheet.places[network]
    _, half, _, size, _ = _MEASURES[sheet.columns]
    for shown, spot in zip(flows.layout.boxes, places.boxes, strict=True):
        x = _centre(sheet, network, spot.column)
        marks.box(axis, x, half, spot.top, spot.bottom, shown.members > 1)
        # Names that are a little too long get a smaller font; longer ones are cut.
        needed = 2 * half / (_LETTER_WIDTH * len(shown.name.rpartition(".")[2]))
        fitting = min(size, 0.7 * (spot.bottom - spot.top), max(0.8 * size, needed))
        letters = int(2 * half / (_LETTER_WIDTH * fitting))
        words = shortened(shown.name, letters)
        if shown.members > 1:
            words = f"{shown.members} {TIMES} {shortened(shown.kind, letters - 5)}"
        marks.text(axis, x, (spot.top + spot.bottom) / 2, words, fitting, ha="center")
    for column, (first, last) in enumerate(places.columns):
        x = _centre(sheet, network, column)
        top = "input" if column == 0 else "↑ to the column before"
        bottom = "loss" if column == len(places.columns) - 1 else "from the next column ↑"
        above = _top_with_skips(sheet, network, first) - 9
        marks.text(axis, x, above, top, size, ha="center", color=theme.GREY)
        marks.text(axis, x, places.boxes[last].bottom + 21, bottom, size, ha="center",
                   color=theme.GREY)  # fmt: skip
    left = sheet.left(network, 0)
    marks.text(axis, left, 7, shortened(flows.layout.network, 30), 9.5, ha="left", weight="bold")
