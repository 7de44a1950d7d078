"""Measures what the overview shows of a network: accuracy, its jumps, gradients by depth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.accuracy.jumps import FALSE_DISCOVERY_RATE, changes_of_network
from analyses.accuracy.learning_curves import curves_of
from analyses.gradients.profile import factor_over_depth, gradient_profile
from analyses.reading.depth_bins import DepthBins, depth_bins
from analyses.reading.layer_gradients import medians_by_epoch, pivot_by_step
from analyses.reading.predictions import accuracy_by_epoch, right_images
from analyses.reading.runs import seed_label
from analyses.statistics.basics.ranks import false_discovery_adjusted
from analyses.statistics.proportions import paired_change
from gradflow.runs.reading.run import Run

MARKED_COLUMNS = ("seed", "epoch", "change", "accuracy", "fresh_change", "stale")


@dataclass(frozen=True)
class NetworkOverview:
    """Accuracy and gradients of all seeds of one network.

    Fields:
        network: its name.
        curves: columns seed, epoch, accuracy, low, high (Wilson 95 %), train_accuracy, fresh (the
            accuracy with re-estimated batch-norm statistics); NaN if not recorded. low and high
            need predictions. lost: whether `fresh` is higher beyond sampling noise (McNemar on the
            same images, adjusted after Benjamini & Hochberg).
        changes: number of changes of accuracy that were tested.
        marked: the changes beyond sampling noise: seed, epoch (the later one), change, accuracy
            (at that epoch), fresh_change (the change of the accuracy with re-estimated batch-norm
            statistics; NaN if not recorded), stale (whether no change beyond noise is left with
            these; False if not recorded).
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
    curves = _curves(runs, predicted, false_discovery_rate)
    tested, marked = _marked(network, predicted, curves, false_discovery_rate)
    return NetworkOverview(
        network=network,
        curves=curves,
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


def _curves(runs: list[Run], predicted: list[Run], false_discovery_rate: float) -> pd.DataFrame:
    names = ["seed", "epoch", "accuracy", "low", "high", "train_accuracy", "fresh", "p_value"]
    parts = []
    for run in runs:
        scalars = curves_of(run).rename(columns={"val_accuracy": "accuracy"})
        if run in predicted:
            # The accuracy on distinct images, which the jumps use too.
            right = right_images(run)
            own = accuracy_by_epoch(right).astype(float)
            kept = scalars.drop(columns=["accuracy", "images"], errors="ignore")
            scalars = kept.merge(own, on="epoch", how="outer")
            if len(run.recalibration):
                again = right_images(run, "recalibration")
                fresh = accuracy_by_epoch(again)[["epoch", "accuracy"]]
                fresh = fresh.rename(columns={"accuracy": "fresh"}).astype(float)
                fresh["p_value"] = fresh["epoch"].map(_p_values(right, again))
                scalars = scalars.merge(fresh, on="epoch", how="left")
        parts.append(scalars.assign(seed=seed_label(run)).reindex(columns=names))
    curves = pd.concat(parts, ignore_index=True)
    tested = curves["p_value"].notna()
    lost = pd.Series(data=False, index=curves.index)
    if tested.any():
        sure = false_discovery_adjusted(curves.loc[tested, "p_value"]) <= false_discovery_rate
        lost[tested] = sure & (curves["fresh"] > curves["accuracy"])[tested]
    return curves.drop(columns="p_value").assign(lost=lost)


def _p_values(right: pd.DataFrame, again: pd.DataFrame) -> dict[float, float]:
    """McNemar's p-value of the difference between both kinds of statistics, by common epoch."""
    images = right.columns.intersection(again.columns)
    epochs = right.index.intersection(again.index)
    sides = [one.loc[epochs, images].to_numpy() for one in (right, again)]
    return {
        float(epoch): paired_change(*pair).p_value
        for epoch, *pair in zip(epochs, *sides, strict=True)
    }


def _marked(
    network: str, runs: list[Run], curves: pd.DataFrame, false_discovery_rate: float
) -> tuple[int, pd.DataFrame]:
    """The number of tested changes, and the changes beyond noise."""
    if not runs:
        return 0, pd.DataFrame(columns=list(MARKED_COLUMNS))
    found = changes_of_network(network, runs, false_discovery_rate)
    if not len(found.changes):
        return 0, pd.DataFrame(columns=list(MARKED_COLUMNS))
    real = found.changes[found.changes["real"]]
    heights = curves.dropna(subset=["accuracy", "low"]).drop_duplicates(["seed", "epoch"])
    # Between the same epochs as the change itself, or unknown.
    heights = heights.assign(fresh_change=heights.groupby("seed")["fresh"].diff())
    columns = ["seed", "epoch", "accuracy", "fresh_change"]
    real = real.merge(heights[columns], on=["seed", "epoch"])
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
