"""Reduces the table `positions` to courses in time by step."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradflow.runs.reading.run import Run

MAX_COLUMNS = 120  # of a picture: more steps are gathered
LAST_STEPS = 20  # recorded steps whose median is told
WORDS = {"input": "inputs of", "calls": "calls of", "output": "outputs of"}


@dataclass(frozen=True)
class Course:
    """The gradient norm by position of one tensor of a layer, relative to the largest in its step.

    Fields:
        layer, tensor: as in the table.
        by_step: one row a bin, named by its first position; one column a step, or the median over
            neighbouring ones.
        last: medians over the last steps, one a bin.
        positions: how many.
    """

    layer: str
    tensor: str
    by_step: pd.DataFrame
    last: pd.Series
    positions: int

    @property
    def name(self) -> str:
        """What the positions are of, e.g. "inputs of rnn"."""
        return f"{WORDS[self.tensor]} {self.layer}"

    def at(self, share: float) -> float | None:
        """The median over the last steps at this share of the positions, from 0 to 1."""
        value = float(self.last.iloc[round(share * (len(self.last) - 1))])
        return value if np.isfinite(value) else None


def courses(run: Run) -> list[Course]:
    """The courses of a run: of recurrences first, then of other layers, in order of execution.

    Only steps whose sequences are as long as those of the last one are taken. The input of a layer
    stands for its output too.
    """
    table = run.table("positions")
    order = {layer: place for place, layer in enumerate(run.layers["layer"])}
    found: dict[tuple[str, str], Course] = {}
    for (layer, tensor), rows in table.groupby(["layer", "tensor"], sort=False):
        one = _course(str(layer), str(tensor), rows)
        if one is not None:
            found[str(layer), str(tensor)] = one
    kept = [
        one
        for (layer, tensor), one in found.items()
        if tensor != "output" or (layer, "input") not in found
    ]
    return sorted(kept, key=lambda one: (one.tensor == "output", order.get(one.layer, len(order))))


def _course(layer: str, tensor: str, rows: pd.DataFrame) -> Course | None:
    ends = rows.groupby("step")["last_position"].max()
    steps = ends.index[ends == ends.iloc[-1]]
    norms = rows[rows["step"].isin(steps)].pivot_table(
        index="first_position", columns="step", values="gradient_norm"
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (norms / norms.max()).astype(float)
    shares = shares.loc[:, np.isfinite(shares).any()]
    if not shares.shape[1] or len(shares) < 2:
        return None
    last = shares.iloc[:, -LAST_STEPS:].median(axis=1)
    return Course(layer, tensor, _gathered(shares), last, int(ends.iloc[-1]) + 1)


def _gathered(by_step: pd.DataFrame) -> pd.DataFrame:
    count = by_step.shape[1]
    if count <= MAX_COLUMNS:
        return by_step
    places = np.arange(count) * MAX_COLUMNS // count
    found = by_step.T.groupby(places).median().T
    found.columns = by_step.columns[np.flatnonzero(np.diff(places, prepend=-1))]
    return found
