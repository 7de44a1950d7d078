"""The gradient on every arrow of a drawn network, epoch by epoch.

Norms of tensors of different size say nothing about one another, so each is taken relative to the
norm at the end of its stage, at the same step: there, where the gradient comes in from the loss, it
is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.gradients.network_drawing.layout import Layout
from analyses.reading.layer_gradients import wide
from analyses.statistics import Array
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class Arrow:
    """A flow of gradient: its `kind` is `trunk`, `branch` or `skip`.

    `place` is the box whose output the gradient of a trunk is taken at, or the number of the skip
    that a branch or skip belongs to; `name` says what it is in words.
    """

    kind: str
    place: int
    name: str


@dataclass(frozen=True)
class Flows:
    """The gradient on each arrow of one network.

    Fields:
        layout: what is drawn.
        arrows: in no particular order.
        relative: norm relative to that at the end of the stage, one row an arrow, one column an
            epoch: median over steps, geometric mean over seeds; NaN where there is none.
        norm: the L2 norm itself, likewise.
        shares: the skip's share of the gradient, one row an addition, one column an epoch: median
            over steps, mean over seeds.
        seeds: how many runs.
    """

    layout: Layout
    arrows: tuple[Arrow, ...]
    relative: pd.DataFrame
    norm: pd.DataFrame
    shares: pd.DataFrame
    seeds: int

    def row(self, kind: str, place: int) -> int:
        """The row of the arrow of this kind at this place."""
        return next(
            row for row, one in enumerate(self.arrows) if (one.kind, one.place) == (kind, place)
        )

    def factor(self, stage: int) -> pd.Series:
        """How often the gradient at the last output of a stage goes into that at the first."""
        return self.relative.iloc[self.row("trunk", self.layout.stages[stage].first)]


def flows_of(layout: Layout, runs: Sequence[Run]) -> Flows:
    """The gradient on each arrow of `layout`, over the `runs` of its network."""
    arrows = _arrows(layout)
    measured = [_RunNorms(layout, run) for run in runs]
    return Flows(
        layout=layout,
        arrows=tuple(arrows),
        relative=_over_seeds([_over_steps(one.relative(arrows)) for one in measured]),
        norm=_over_seeds([_over_steps(one.norms(arrows)) for one in measured]),
        shares=_shares(layout, runs),
        seeds=len(runs),
    )


def _arrows(layout: Layout) -> list[Arrow]:
    outputs = [Arrow("trunk", i, f"{box.name}, output") for i, box in enumerate(layout.boxes)]
    parts = [
        Arrow(kind, number, f"{name_range(skip.names)}, {kind}")
        for number, skip in enumerate(layout.skips)
        for kind in ("branch", "skip")
    ]
    return outputs + parts


def name_range(names: Sequence[str]) -> str:
    """One name, or the first and the last of several."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


class _RunNorms:
    """The norms of one run, one entry per (epoch, step)."""

    def __init__(self, layout: Layout, run: Run) -> None:
        self._layout = layout
        outputs = pd.Series([box.output for box in layout.boxes if box.output], dtype=object)
        additions = pd.Series([name for skip in layout.skips for name in skip.names], dtype=object)
        tables = {"output": wide(run.gradients, "norm", outputs)}
        for kind in ("input", "skip", "branch"):
            tables[kind] = wide(run.junctions, f"{kind}_gradient_norm", additions)
        self._steps = tables["output"].index.union(tables["input"].index)
        self._norms: dict[tuple[str, str], Array] = {
            (kind, str(name)): values
            for kind, table in tables.items()
            for name, values in zip(
                table.columns, table.reindex(self._steps).to_numpy(dtype=float).T, strict=True
            )
        }

    def norms(self, arrows: Sequence[Arrow]) -> pd.DataFrame:
        """The norm on each arrow, of several additions their geometric mean."""
        return self._frame([_geometric_mean(self._members(arrow)) for arrow in arrows])

    def relative(self, arrows: Sequence[Arrow]) -> pd.DataFrame:
        """The norm on each arrow relative to that at the end of the stage it is compared in."""
        return self._frame([self._ratio(arrow) for arrow in arrows])

    def _frame(self, columns: list[Array]) -> pd.DataFrame:
        return pd.DataFrame(np.column_stack(columns), index=self._steps)

    def _ratio(self, arrow: Arrow) -> Array:
        shape_box = (
            arrow.place if arrow.kind == "trunk" else self._layout.skips[arrow.place].shape_box
        )
        if shape_box is not None:
            whole = self._trunk(self._layout.stage_of(shape_box).last)
        else:
            # Nothing of the shape of x was observed: skip and branch are parts of dL/dx itself.
            names = self._layout.skips[arrow.place].names
            whole = _geometric_mean([self._norms["input", name] for name in names])
        with np.errstate(divide="ignore", invalid="ignore"):  # a zero says nothing of the rest
            ratio: Array = _geometric_mean(self._members(arrow)) / whole
        return ratio

    def _members(self, arrow: Arrow) -> list[Array]:
        if arrow.kind == "trunk":
            return [self._trunk(arrow.place)]
        return [self._norms[arrow.kind, name] for name in self._layout.skips[arrow.place].names]

    def _trunk(self, box: int) -> Array:
        """The norm at a box's output: as observed there, or at the input of the next addition."""
        output = self._layout.boxes[box].output
        if output:
            return self._norms["output", output]
        following = [skip.names[0] for skip in self._layout.skips if skip.start == box + 1]
        if following:
            return self._norms["input", following[0]]
        return np.full(len(self._steps), np.nan)


def _geometric_mean(members: Sequence[Array]) -> Array:
    if len(members) == 1:
        return members[0]
    with np.errstate(divide="ignore"):  # the mean of a zero and others is zero
        mean: Array = np.exp(np.mean(np.log(members), axis=0))
    return mean


def _over_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Median over the steps of each epoch: one row an arrow, one column an epoch."""
    finite = steps.replace([np.inf, -np.inf], np.nan)
    return finite.groupby(level="epoch").median().T


def _over_seeds(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Geometric mean over the seeds that have a value."""
    with np.errstate(divide="ignore"):
        logs = pd.concat([np.log(table) for table in tables], keys=range(len(tables)))
        return np.exp(logs.groupby(level=1).mean()).sort_index()


def _shares(layout: Layout, runs: Sequence[Run]) -> pd.DataFrame:
    names = pd.Series([name for skip in layout.skips for name in skip.names], dtype=object)
    medians = [_over_steps(wide(run.junctions, "skip_share", names)) for run in runs]
    pooled = pd.concat(medians, keys=range(len(medians)))
    return pooled.groupby(level=1).mean().reindex(names)
