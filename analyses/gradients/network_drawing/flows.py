"""The gradient on every arrow of a drawn network, by epoch.

Norms of tensors of different size do not compare. Each norm is therefore divided by the norm at the
end of its stage at the same step. The gradient arrives there from the loss, so the value there is
1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.gradients.network_drawing.layout import Layout
from analyses.reading.layer_gradients import pivot_by_step
from analyses.statistics import Array
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class Arrow:
    """An arrow of the drawing.

    Fields:
        kind: `trunk`, `branch` or `skip`.
        place: of a trunk, the box at whose output the gradient is measured; otherwise the number
            of the skip in the layout.
        name: what the arrow is, in words.
    """

    kind: str
    place: int
    name: str


@dataclass(frozen=True)
class Flows:
    """The gradient on each arrow of one network.

    Fields:
        layout: the boxes, stages and skips.
        arrows: the arrows, in the order of the rows of `relative` and `norm`.
        relative: norm relative to that at the end of the stage, one row an arrow, one column an
            epoch: median over steps, geometric mean over seeds; NaN if not recorded.
        norm: the L2 norm itself, in the same way.
        shares: the skip's share of the gradient, one row an addition, one column an epoch: median
            over steps, mean over seeds.
        seeds: number of runs.
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
        """The gradient at the first output of a stage over that at its last, by epoch."""
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
    """The norms of one run, by (epoch, step)."""

    def __init__(self, layout: Layout, run: Run) -> None:
        self._layout = layout
        outputs = pd.Series([box.output for box in layout.boxes if box.output], dtype=object)
        additions = pd.Series([name for skip in layout.skips for name in skip.names], dtype=object)
        tables = {"output": pivot_by_step(run.gradients, "norm", outputs)}
        for kind in ("input", "skip", "branch"):
            tables[kind] = pivot_by_step(run.junctions, f"{kind}_gradient_norm", additions)
        self._steps = tables["output"].index.union(tables["input"].index)
        self._norms: dict[tuple[str, str], Array] = {
            (kind, str(name)): values
            for kind, table in tables.items()
            for name, values in zip(
                table.columns, table.reindex(self._steps).to_numpy(dtype=float).T, strict=True
            )
        }

    def norms(self, arrows: Sequence[Arrow]) -> pd.DataFrame:
        """The norm on each arrow; the geometric mean if it stands for several additions."""
        return self._frame([_geometric_mean(self._members(arrow)) for arrow in arrows])

    def relative(self, arrows: Sequence[Arrow]) -> pd.DataFrame:
        """The norm on each arrow, relative to that at the end of its stage."""
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
            # No tensor of the shape of x was observed: divide by the norm of dL/dx itself.
            names = self._layout.skips[arrow.place].names
            whole = _geometric_mean([self._norms["input", name] for name in names])
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # division by a zero norm gives inf or NaN
            ratio: Array = _geometric_mean(self._members(arrow)) / whole
        return ratio

    def _members(self, arrow: Arrow) -> list[Array]:
        if arrow.kind == "trunk":
            return [self._trunk(arrow.place)]
        return [self._norms[arrow.kind, name] for name in self._layout.skips[arrow.place].names]

    def _trunk(self, box: int) -> Array:
        """The norm at a box's output: observed there, or at the input of the next addition."""
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
    with np.errstate(divide="ignore"):  # a zero makes the geometric mean zero
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
    medians = [_over_steps(pivot_by_step(run.junctions, "skip_share", names)) for run in runs]
    pooled = pd.concat(medians, keys=range(len(medians)))
    return pooled.groupby(level=1).mean().reindex(names)
