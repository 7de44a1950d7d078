"""Draws heat maps by layer and step, the layers by their names: for those who named them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme

# More columns could not be told apart in print.
MOST_COLUMNS = 60
_MOST_NAMES = 48
# In inches: a row of a map, a map, a panel above it, and the whole figure.
_ROW, _LEAST, _ABOVE, _MOST = 0.105, 1.6, 0.9, 6.0
_LONGEST_NAME = 30
_LABELLED = 6  # marked steps; the labels of more would be a tower
_LABEL_HEIGHT = 9  # points
_LETTER = 0.0125  # the width of a letter of a label, as a share of the panel's


def medians_by_step(tables: list[pd.DataFrame], most: int = MOST_COLUMNS) -> pd.DataFrame:
    """Medians over successive steps and seeds: rows layers, columns the first step of each bin.

    `tables` have the level "step" in their index and a column a layer, as `pivot_by_step` gives
    them.
    """
    pooled = pd.concat(tables).replace([np.inf, -np.inf], np.nan)
    own = pooled.index.get_level_values("step").to_numpy()
    steps = np.unique(own)
    firsts = steps[:: -(-len(steps) // most)]
    place = firsts[np.searchsorted(firsts, own, side="right") - 1]
    medians: pd.DataFrame = pooled.groupby(place).median().T
    return medians


def draw_layers_by_step(
    maps: Mapping[str, pd.DataFrame],
    colour_label: str,
    *,
    colour_map: str = "viridis",
    titles: Sequence[str] = (),
    above: Callable[[Axes, int], None] | None = None,
    marks: Sequence[Mapping[int, str]] = (),
) -> Drawing:
    """Heat maps below each other, with the names of the layers beside their rows.

    One logarithmic colour scale; what is not positive or not finite stays grey.

    Args:
        maps: rows layers, columns steps, by name.
        colour_label: what the colours show.
        colour_map: the palette.
        titles: of the maps; their names if empty.
        above: draws on the panel above the map at a place; None for no such panel.
        marks: for each map the steps to mark, with their labels.
    """
    shown = [matrix.where(matrix > 0) for matrix in maps.values()]
    scale = panels.log_colours(shown)
    heights = []
    for matrix in shown:
        heights += [_ABOVE] if above else []
        heights.append(max(_LEAST, 0.35 + _ROW * min(len(matrix), _MOST_NAMES)))
    figure, axes = panels.subplots(
        len(heights),
        1,
        min(_MOST, sum(heights) + 0.5),
        gridspec_kw={"height_ratios": heights},
        sharex=False,
    )
    rows = list(axes[:, 0])
    for place, (matrix, title) in enumerate(zip(shown, titles or list(maps), strict=True)):
        upper = rows.pop(0) if above else None
        axis = rows.pop(0)
        drawn = panels.heat_map(axis, matrix, scale, colour_map, "" if upper else title)
        _name_rows(axis, matrix)
        if upper is not None and above is not None:
            above(upper, place)
            upper.set_title(title)
            upper.set_xlim(axis.get_xlim())
            upper.tick_params(axis="x", labelbottom=False)
        for one in (upper, axis):
            named = one is (upper or axis)
            rows_above = _mark(one, marks[place] if marks else {}, named=named)
            if named and rows_above and one is not None:
                one.set_title(one.get_title(), pad=6 + _LABEL_HEIGHT * rows_above)
    last = [axis for axis in axes[:, 0] if axis.collections]
    bar = panels.colour_bar(figure, drawn, last, colour_label)
    panels.plain_log_ticks(bar.ax.yaxis, drawn.norm.vmax / drawn.norm.vmin)
    return figure


def _name_rows(axis: Axes, matrix: pd.DataFrame) -> None:
    panels.epoch_axis(axis, "step")
    rows = np.arange(0, len(matrix), -(-len(matrix) // _MOST_NAMES))
    axis.set_yticks(rows, [_short(str(matrix.index[row])) for row in rows])
    axis.tick_params(axis="y", labelsize=theme.SMALL_TEXT_SIZE - 1.5, length=2)


def _mark(axis: Axes | None, marks: Mapping[int, str], *, named: bool) -> int:
    """Vertical lines at the marked steps; if `named`, with labels in rows above the panel.

    Returns the number of rows.
    """
    if axis is None:
        return 0
    for step in marks:
        axis.axvline(step, color="black", lw=1.6)
        axis.axvline(step, color="white", lw=0.7, ls=(0, (3, 2)))
    if not named:
        return 0
    shown = [(step, f"{label} ({step})") for step, label in marks.items()][:_LABELLED]
    rows = _rows_of_labels(shown, round(axis.get_xlim()[1]))
    for (step, label), row in zip(shown, rows, strict=True):
        axis.annotate(
            label,
            (step, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 + _LABEL_HEIGHT * row),
            textcoords="offset points",
            va="bottom",
            fontsize=theme.SMALL_TEXT_SIZE,
            annotation_clip=False,
        )
    return max(rows, default=-1) + 1


def _rows_of_labels(labels: Sequence[tuple[int, str]], last: int) -> list[int]:
    """The lowest row for each label, from left to right, in which it lies on no other."""
    ends: list[float] = []
    rows = []
    for step, label in labels:
        begin = step / max(last, 1)
        row = next((place for place, end in enumerate(ends) if end <= begin), len(ends))
        ends[row : row + 1] = [begin + _LETTER * len(label)]
        rows.append(row)
    return rows


def _short(name: str) -> str:
    """The end of a long name: it tells layers apart."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
