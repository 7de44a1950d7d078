"""Computes the explorer's values: for each run, an array of quantity by row by epoch bin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradflow.runs.reading.run import Experiment, Run
from reports.explorer.quantities import GROUPS, SHOWN_AS_LARGEST, QuantityGroup
from reports.explorer.rows import junction_rows, layer_rows, parameter_rows, shown_layers

Array = npt.NDArray[np.float64]
Bins = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class NetworkRows:
    """The rows of one kind in each network, and how many rows were left out."""

    frames: tuple[pd.DataFrame, ...]
    left_out: tuple[int, ...]


def recorded_times(experiment: Experiment, time: str = "epoch") -> list[int]:
    """The epochs (or steps) in which any run recorded a quantity of the explorer, ascending."""
    found: set[int] = set()
    for run in experiment.runs:
        for group in GROUPS:
            found |= {int(one) for one in run.table(group.table)[time].unique()}
    return sorted(found)


def step_bins(steps: Sequence[int], most: int) -> Bins:
    """Bins as `epoch_bins` gives them, each as far as the next: not every step is recorded."""
    bins = epoch_bins(steps, most)
    ends = [first - 1 for first, _ in bins[1:]] + [bins[-1][1]]
    return tuple((first, end) for (first, _), end in zip(bins, ends, strict=True))


def epoch_bins(epochs: Sequence[int], most: int) -> Bins:
    """At most `most` bins of equally many successive epochs, each as (first, last)."""
    size = -(-len(epochs) // most)
    parts = [epochs[start : start + size] for start in range(0, len(epochs), size)]
    return tuple((part[0], part[-1]) for part in parts)


def rows_by_network(experiment: Experiment, kind: str) -> NetworkRows:
    """The rows of `kind` (layers, parameters or junctions) in each network, in order of depth.

    The rows are taken from the network's first run that recorded any.
    """
    frames, left_out = [], []
    for network in experiment.networks:
        runs = experiment.of_network(network)
        candidates = (_rows(run, kind) for run in runs)
        rows = next((frame for frame in candidates if len(frame)), _rows(runs[0], kind))
        shown = shown_layers(rows)
        frames.append(shown)
        left_out.append(len(rows) - len(shown))
    return NetworkRows(tuple(frames), tuple(left_out))


def binned_values(
    run: Run, group: QuantityGroup, rows: pd.DataFrame, bins: Bins, time: str = "epoch"
) -> Array:
    """Values of shape [quantity, row, bin]: medians over the recorded steps of each bin.

    Quantities in `SHOWN_AS_LARGEST` give the largest value instead. A value that was not observed
    is nan. A value that was not finite is inf, larger than any number.
    """
    names = list(group.columns)
    values = np.full((len(names), len(rows), len(bins)), np.nan)
    frame = run.table(group.table)
    row = rows.index.get_indexer(frame[group.row_column])
    frame, row = frame[row >= 0], row[row >= 0]
    if frame.empty:
        return values
    column = np.searchsorted([first for first, _ in bins], frame[time], side="right") - 1
    place = row * len(bins) + column
    groups = _with_nonfinite_as_infinity(frame, group.table)[names].astype(float).groupby(place)
    summary = groups.median()
    largest = [name for name in names if name in SHOWN_AS_LARGEST]
    summary[largest] = groups[largest].max()
    values.reshape(len(names), -1)[:, summary.index] = summary[names].to_numpy().T
    return values


def _rows(run: Run, kind: str) -> pd.DataFrame:
    layers = layer_rows(run)
    if kind == "parameters":
        return parameter_rows(run, layers)
    return junction_rows(run, layers) if kind == "junctions" else layers


def _with_nonfinite_as_infinity(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """`frame` with inf in place of every observed value that is nan or infinite.

    A frame does not distinguish an observed nan from a missing value. A nan counts as observed if
    the tensor is known to have non-finite elements, or if the norm of the weights is nan.
    """
    frame = frame.replace(-np.inf, np.inf)
    if table in ("activations", "gradients"):
        return frame.mask((frame["nonfinite"] > 0).to_numpy()[:, None] & frame.isna(), np.inf)
    if table == "parameters":
        # The norm of the weights is always observed, so nan means that it was not finite.
        return frame.mask(frame["weight_norm"].isna().to_numpy()[:, None] & frame.isna(), np.inf)
    return frame
