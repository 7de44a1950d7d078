"""Finds the boxes that each skip of a network leads over, from the trace.

In most cases names are enough: an addition belongs to the block whose forward adds. Otherwise,
tensors are recognized by their recorded values at every step. The input x of skip and branch has
the gradient norm of some layer's output, and the branch's result has the variance of some layer's
output.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.gradients.network_drawing.boxes import Box, additions_of, without_call
from analyses.reading.layer_gradients import pivot_by_step
from gradflow.runs.reading.run import Run

# Number of steps compared: two tensors that agree at all of them are the same.
_COMPARED_STEPS = 12
_SAME = 1e-6  # relative: rounding differences between sums in another order


@dataclass(frozen=True)
class Skip:
    """A skip over the boxes `start` to `end`.

    Fields:
        names: the recorded names of the residual additions that it stands for, mostly one.
        start: the first box of the branch; its input is x.
        end: the box to whose output the skip is added.
        skip_type: `identity`, `projection`, `gated` or `mixed`.
        shape_box: the box whose output has the shape of x; None if unknown.
    """

    names: tuple[str, ...]
    start: int
    end: int
    skip_type: str
    shape_box: int | None


def skips_of(run: Run, boxes: Sequence[Box]) -> tuple[list[Skip], list[str]]:
    """The skips of `run` in order of their ends, and the additions that could not be located."""
    skip_types = dict(zip(run.junctions["layer"], run.junctions["skip_type"], strict=True))
    places = {box.name: place for place, box in enumerate(boxes)}
    recorded = _TensorMatcher(run, boxes)
    skips, unplaced = [], []
    for owner, names in additions_of(run).items():
        for number, name in enumerate(names):
            if name in places:
                end = places[name]
                # A further addition of a block starts at the end of the one before it.
                start = end if number else recorded.start_of_block(name, end)
            elif len(names) == 1 and (inside := _boxes_inside(owner, boxes)):
                start, end = inside[0], inside[-1]
            elif (found := recorded.end_of(name)) is not None:
                start, end = recorded.start_of(name, found), found
            else:
                unplaced.append(name)
                continue
            shape_box = recorded.shape_box_of(name, start, end, skip_types[name])
            skips.append(Skip((name,), start, end, skip_types[name], shape_box))
    return sorted(skips, key=lambda skip: (skip.end, -skip.start)), unplaced


def _boxes_inside(owner: str, boxes: Sequence[Box]) -> list[int]:
    within = f"{without_call(owner)}."
    return [place for place, box in enumerate(boxes) if box.name.startswith(within)]


class _TensorMatcher:
    """Finds recorded tensors that are the same, by comparing their recorded values."""

    def __init__(self, run: Run, boxes: Sequence[Box]) -> None:
        self._boxes = boxes
        self._layers = run.layers["layer"].reset_index(drop=True)
        self._shapes = run.layers["shape"].to_list()
        steps = run.junctions["step"].drop_duplicates().to_numpy()
        kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _COMPARED_STEPS)).round())
        self._steps = steps[kept.astype(int)]
        names = run.junctions["layer"].drop_duplicates()
        self._norms = self._of(run.gradients, "norm", self._layers)
        self._inputs = self._of(run.junctions, "input_gradient_norm", names)
        self._variances = self._of(run.activations, "channel_variance", self._layers)
        self._branches = self._of(run.junctions, "branch_variance", names)

    def _of(self, table: pd.DataFrame, quantity: str, names: pd.Series) -> pd.DataFrame:
        return pivot_by_step(table[table["step"].isin(self._steps)], quantity, names)

    def start_of_block(self, addition: str, end: int) -> int:
        """The first box of the branch of a block's first addition, which ends at box `end`.

        It is the block itself, unless x was computed before boxes outside of the block: in BERT
        attention is one module, and another one adds.
        """
        before = self._places_of_input(addition)
        return end if end - 1 in before else max((p + 1 for p in before if p < end), default=end)

    def start_of(self, addition: str, end: int) -> int:
        """The first box of the branch if only the last one is known; `end` by default."""
        return max((p + 1 for p in self._places_of_input(addition) if p < end), default=end)

    def end_of(self, addition: str) -> int | None:
        """The box that computes the branch's result; None if no observed layer does."""
        return min(self._places(self._branches, self._variances, addition), default=None)

    def shape_box_of(self, addition: str, start: int, end: int, skip_type: str) -> int | None:
        """The box whose output has the shape of x, the input of skip and branch."""
        shapes = {self._shapes[row] for row in self._rows(self._inputs, self._norms, addition)}
        if start > 0 and self._boxes[start - 1].shape in shapes:
            return start - 1
        return (
            end if skip_type in ("identity", "gated") or self._boxes[end].shape in shapes else None
        )

    def _places_of_input(self, addition: str) -> set[int]:
        return self._places(self._inputs, self._norms, addition)

    def _places(self, table: pd.DataFrame, layers: pd.DataFrame, addition: str) -> set[int]:
        """The boxes whose layers have the values of `addition` in `table`."""
        firsts = [box.rows[0] for box in self._boxes]
        rows = self._rows(table, layers, addition)
        return {bisect_right(firsts, row) - 1 for row in rows if row >= firsts[0]}

    def _rows(self, table: pd.DataFrame, layers: pd.DataFrame, addition: str) -> list[int]:
        """The rows of the layers that have the values of `addition` in `table`."""
        mine = table[addition].dropna()
        mine = mine[mine > 0]
        if mine.empty:
            return []
        others = layers.reindex(mine.index).to_numpy(dtype=float)
        ratios = others / mine.to_numpy(dtype=float)[:, None]
        return [int(row) for row in np.flatnonzero((np.abs(ratios - 1) < _SAME).all(axis=0))]
