"""What one picture shows of a network: its accuracy, the jumps of it, its gradients by depth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.accuracy.jumps import RATE, jumps
from analyses.accuracy.learning_curves import curves_of
from analyses.gradients.profile import factor_over_depth, gradient_profile
from analyses.reading.layer_gradients import medians_by_epoch, wide
from analyses.reading.predictions import accuracy_by_epoch, correctness, predictions_of
from analyses.reading.runs import seed_name
from gradflow.runs.reading.run import Run

MARKED = ("seed", "epoch", "change", "accuracy", "stale")


@dataclass(frozen=True)
class NetworkOverview:
    """Accuracy and gradients of all seeds of one network.

    Fields:
        network: its name.
        curves: columns seed, epoch, accuracy, low, high, train_accuracy; what was not recorded is
            NaN, low and high (Wilson 95 %) where the accuracy is not that of predictions.
        changes: how many changes of accuracy were tested.
        marked: those beyond sampling noise: seed, epoch (the later one), change, accuracy (there),
            stale (no longer so with batch-norm statistics re-estimated; False where these were
            not recorded).
        re_estimated: were the statistics re-estimated in every run with predictions?
        gradients: median root mean square of the gradient with respect to the outputs of the
            layers with weights, rows depth, columns epoch.
        stages: runs of layers of one output shape, in order: columns first and last (row of
            `gradients`), shape.
        layers: how many layers the factor spans.
        factor, low, high: of the gradient norm from the last layer to the first, compared at equal
            output shape, with its 95 % interval; None where there is none.
    """

    network: str
    curves: pd.DataFrame
    changes: int
    marked: pd.DataFrame
    re_estimated: bool
    gradients: pd.DataFrame
    stages: pd.DataFrame
    layers: int
    factor: float | None
    low: float | None
    high: float | None


def network_overview(network: str, runs: list[Run], rate: float = RATE) -> NetworkOverview:
    """Reduce the runs of one network; `rate` bounds false discoveries among the changes.

    Raises `NotApplicableError` where a run has no gradients at two layers with weights.
    """
    flow = gradient_profile(network, runs)
    layers = flow.seeds[0].layers
    rms = [wide(run.gradients, "rms", layers["layer"]) for run in runs]
    factor, low, high = factor_over_depth(flow)
    predicted = [run for run in runs if len(run.predictions)]
    tested, marked = _marked(network, predicted, rate)
    return NetworkOverview(
        network=network,
        curves=_curves(runs, predicted),
        changes=tested,
        marked=marked,
        re_estimated=all(len(run.recalibration) for run in predicted),
        gradients=medians_by_epoch(rms, layers["depth"]),
        stages=_stages(layers, runs[0].layers),
        layers=flow.depth,
        factor=factor,
        low=low,
        high=high,
    )


def _curves(runs: list[Run], predicted: list[Run]) -> pd.DataFrame:
    names = ["seed", "epoch", "accuracy", "low", "high", "train_accuracy"]
    parts = []
    for run in runs:
        scalars = curves_of(run).rename(columns={"val_accuracy": "accuracy"})
        if run in predicted:
            # Of the distinct images, as the jumps are.
            own = accuracy_by_epoch(correctness(predictions_of(run))).astype(float)
            kept = scalars.drop(columns=["accuracy", "images"], errors="ignore")
            scalars = kept.merge(own, on="epoch", how="outer")
        parts.append(scalars.assign(seed=seed_name(run)).reindex(columns=names))
    return pd.concat(parts, ignore_index=True)


def _marked(network: str, runs: list[Run], rate: float) -> tuple[int, pd.DataFrame]:
    """How many changes were tested, and those beyond noise."""
    if not runs:
        return 0, pd.DataFrame(columns=list(MARKED))
    found = jumps(network, runs, rate)
    if not len(found.changes):
        return 0, pd.DataFrame(columns=list(MARKED))
    real = found.changes[found.changes["real"]]
    heights = found.curves[["seed", "epoch", "accuracy"]].drop_duplicates(["seed", "epoch"])
    real = real.merge(heights, on=["seed", "epoch"])
    again = [run for run in runs if len(run.recalibration)]
    stale = _gone(real, jumps(network, again, rate, "recalibration").changes) if again else False
    return len(found.changes), real.assign(stale=stale)[list(MARKED)]


def _gone(real: pd.DataFrame, again: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which of the `real` changes are not among those of `again`, where these were tested."""
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
