"""Measures what the overview shows of a network: accuracy, its jumps, gradients by depth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.accuracy.jumps import FALSE_DISCOVERY_RATE, changes_of_network
from analyses.accuracy.learning_curves import curves_of
from analyses.gradients.profile import factor_over_depth, gradient_profile
from analyses.reading.depth_bins import DepthBins, depth_bins
from analyses.reading.layer_gradients import medians_by_epoch, pivot_by_step
from analyses.reading.predictions import accuracy_by_epoch, correctness, predictions_of
from analyses.reading.runs import seed_label
from gradflow.runs.reading.run import Run

MARKED_COLUMNS = ("seed", "epoch", "change", "accuracy", "stale")


@dataclass(frozen=True)
class NetworkOverview:
    """Accuracy and gradients of all seeds of one network.

    Fields:
        network: its name.
        curves: columns seed, epoch, accuracy, low, high (Wilson 95 %), train_accuracy, fresh (the
            accuracy with re-estimated batch-norm statistics); NaN if not recorded. low and high
            need predictions.
        changes: number of changes of accuracy that were tested.
        marked: the changes beyond sampling noise: seed, epoch (the later one), change, accuracy
            (at that epoch), stale (whether the change disappears with re-estimated batch-norm
            statistics; False if these were not recorded).
        re_estimated: whether the statistics were re-estimated in every run with predictions.
        gradients: median root mean square of the gradient with respect to the outputs of the
            layers with weights; rows depth, columns epoch. Of many layers, a row is a bin.
        bins: the bins that the rows of `gradients` are.
        stages: consecutive layers of equal output shape, in order: columns first and last (row of
            `gradients`), shape; empty if layers are gathered in bins.
        layers: number of layers that the factor spans.
        factor, low, high: factor of the gradient norm from the last layer to the first, compared
            at equal output shape, with its 95 % interval; None if there is none.
    """

    network: str
    curves: pd.DataFrame
    changes: int
    marked: pd.DataFrame
    re_estimated: bool
    gradients: pd.DataFrame
    bins: DepthBins
    stages: pd.DataFrame
    layers: int
    factor: float | None
    low: float | None
    high: float | None


def network_overview(
    network: str, runs: list[Run], false_discovery_rate: float = FALSE_DISCOVERY_RATE
) -> NetworkOverview:
    """Reduce the runs of one network; `false_discovery_rate` is that of the marked changes.

    Raises `NotApplicableError` if a run has no gradients at two layers with weights.
    """
    flow = gradient_profile(network, runs)
    layers = flow.seeds[0].layers
    rms = [pivot_by_step(run.gradients, "rms", layers["layer"]) for run in runs]
    factor, low, high = factor_over_depth(flow)
    bins = depth_bins(list(layers["layer"]))
    stages = _stages(layers, runs[0].layers)
    predicted = [run for run in runs if len(run.predictions)]
    tested, marked = _marked(network, predicted, false_discovery_rate)
    return NetworkOverview(
        network=network,
        curves=_curves(runs, predicted),
        changes=tested,
        marked=marked,
        re_estimated=all(len(run.recalibration) for run in predicted),
        gradients=bins.rows(medians_by_epoch(rms, layers["depth"])),
        bins=bins,
        stages=stages.head(0) if bins.gathered else stages,
        layers=flow.depth,
        factor=factor,
        low=low,
        high=high,
    )


def _curves(runs: list[Run], predicted: list[Run]) -> pd.DataFrame:
    names = ["seed", "epoch", "accuracy", "low", "high", "train_accuracy", "fresh"]
    parts = []
    for run in runs:
        scalars = curves_of(run).rename(columns={"val_accuracy": "accuracy"})
        if run in predicted:
            # The accuracy on distinct images, which the jumps use too.
            own = accuracy_by_epoch(correctness(predictions_of(run))).astype(float)
            kept = scalars.drop(columns=["accuracy", "images"], errors="ignore")
            scalars = kept.merge(own, on="epoch", how="outer")
            if len(run.recalibration):
                again = accuracy_by_epoch(correctness(predictions_of(run, "recalibration")))
                fresh = again[["epoch", "accuracy"]].rename(columns={"accuracy": "fresh"})
                scalars = scalars.merge(fresh.astype(float), on="epoch", how="left")
        parts.append(scalars.assign(seed=seed_label(run)).reindex(columns=names))
    return pd.concat(parts, ignore_index=True)


def _marked(network: str, runs: list[Run], false_discovery_rate: float) -> tuple[int, pd.DataFrame]:
    """The number of tested changes, and the changes beyond noise."""
    if not runs:
        return 0, pd.DataFrame(columns=list(MARKED_COLUMNS))
    found = changes_of_network(network, runs, false_discovery_rate)
    if not len(found.changes):
        return 0, pd.DataFrame(columns=list(MARKED_COLUMNS))
    real = found.changes[found.changes["real"]]
    heights = found.curves[["seed", "epoch", "accuracy"]].drop_duplicates(["seed", "epoch"])
    real = real.merge(heights, on=["seed", "epoch"])
    again = [run for run in runs if len(run.recalibration)]
    stale = (
        _gone_when_re_estimated(
            real, changes_of_network(network, again, false_discovery_rate, "recalibration").changes
        )
        if again
        else False
    )
    return len(found.changes), real.assign(stale=stale)[list(MARKED_COLUMNS)]


def _gone_when_re_estimated(
    real: pd.DataFrame, again: pd.DataFrame
) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """For each of the `real` changes: whether it was tested in `again` and is not real there."""
    if not len(again):
        return np.zeros(len(real), dtype=bool)
    once = again.drop_duplicates(["seed", "epoch"])
    both = real.merge(once, on=["seed", "epoch"], how="left", suffixes=("", "_again"))
    tested = both["real_again"].notna()
    same = both["real_again"].eq(True) & (both["change"] * both["change_again"] > 0)
    gone: np.ndarray[tuple[int], np.dtype[np.bool_]] = (tested & ~same).to_numpy(dtype=bool)
    return gone


def _stages(layers: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    shapes = table.drop_duplicates("layer").set_index("layer")["shape"]
    run = layers["stage"].ne(layers["stage"].shift()).cumsum()
    rows = [
        (own.index[0], own.index[-1], str(shapes[own["layer"].iloc[0]]))
        for _, own in layers.groupby(run)
    ]
    return pd.DataFrame(rows, columns=["first", "last", "shape"])
