"""The interventions of an experiment, and the effect of each on accuracy.

Recalibration removes stale batch-norm statistics from both networks. Training with and without
skips changes only the skips. Scaling skips and deleting blocks act on trained networks.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.accuracy.difference import (
    AccuracyDifference,
    accuracy_difference,
    matched_runs,
    split_by_length,
)
from analyses.reading.pairs import NetworkPair, runs_of_same_seed
from analyses.reading.predictions import right_images
from analyses.skips.lesions import LESIONS, cost_difference, lesions_of
from analyses.skips.scaling import SKIP_SCALES, scaling_response
from analyses.statistics import Array
from analyses.statistics.bootstrap import means_over_images
from analyses.statistics.means import MIN_SEEDS, Mean, mean_over_steps
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Experiment, Run


@dataclass(frozen=True)
class Interventions:
    """The effect of each intervention on accuracy, as a fraction; None if not recorded.

    Fields:
        last_epoch_difference: accuracy of the residual network less that of the plain one, at the
            last epoch.
        mean_difference: the same over all epochs, with running statistics.
        difference_removed: the part of `mean_difference` that re-estimating batch-norm statistics
            takes away.
        loss_without_skips: accuracy that the residual network loses with all skips scaled down.
        deletion_cost_difference: mean cost of deleting one block, plain less residual network.
    """

    last_epoch_difference: AccuracyDifference | None
    mean_difference: Mean | None
    difference_removed: Mean | None
    loss_without_skips: Mean | None
    deletion_cost_difference: Mean | None


def interventions_on(experiment: Experiment, pair: NetworkPair) -> Interventions:
    """The interventions that the runs of `pair` recorded."""
    runs = runs_of_same_seed(experiment, pair)
    gap, removed = _recalibration(runs)
    scaled = [run for run in experiment.of_network(pair.residual) if len(run.table(SKIP_SCALES))]
    lesioned = [
        (lesions_of(plain), lesions_of(residual)) for plain, residual in _with_lesions(runs)
    ]
    both = [(one, other) for one, other in lesioned if one is not None and other is not None]
    matched, _ = split_by_length(matched_runs(runs))
    return Interventions(
        last_epoch_difference=accuracy_difference(matched) if matched else None,
        mean_difference=gap,
        difference_removed=removed,
        loss_without_skips=scaling_response(pair.residual, scaled).lost if scaled else None,
        deletion_cost_difference=cost_difference(both) if both else None,
    )


def _with_lesions(runs: list[tuple[Run, Run]]) -> list[tuple[Run, Run]]:
    return [pair for pair in runs if all(len(run.table(LESIONS)) for run in pair)]


def _recalibration(runs: list[tuple[Run, Run]]) -> tuple[Mean | None, Mean | None]:
    """The difference over all epochs, and the part that re-estimating the statistics removes."""
    seeds = [found for plain, residual in runs if (found := _gaps(plain, residual)) is not None]
    if not seeds:
        return None, None
    gap = _over_images_or_seeds([running for running, _ in seeds])
    removed = _over_images_or_seeds([running - fresh for running, fresh in seeds])
    return gap, removed


def _over_images_or_seeds(seeds: list[Array]) -> Mean:
    """Mean of one vector of images per seed; Student's interval, or over images below 3 seeds."""
    if len(seeds) >= MIN_SEEDS:
        return mean_over_steps([[one.mean()] for one in seeds])
    draws = [means_over_images(one, seed=place) for place, one in enumerate(seeds)]
    low, high = np.quantile(np.mean(draws, axis=0), [0.025, 0.975])
    method = f"bootstrap over {plural(len(seeds[0]), 'validation image')}, all epochs together"
    value = float(np.mean([one.mean() for one in seeds]))
    return Mean(value, float(low), float(high), method)


def _gaps(plain: Run, residual: Run) -> tuple[Array, Array] | None:
    """Residual less plain by image, mean over epochs, with running and re-estimated statistics.

    None if either network lacks either table, or there is no common epoch or image.
    """
    sides = []
    for table in ("predictions", "recalibration"):
        if not all(len(run.table(table)) for run in (plain, residual)):
            return None
        sides += [right_images(run, table) for run in (plain, residual)]
    epochs, images = sides[0].index, sides[0].columns
    for side in sides[1:]:
        epochs, images = epochs.intersection(side.index), images.intersection(side.columns)
    if not (len(epochs) and len(images)):
        return None
    means = [side.loc[epochs, images].astype(float).mean().to_numpy() for side in sides]
    return means[1] - means[0], means[3] - means[2]


def last_accuracy(run: Run) -> float:
    """Validation accuracy at the last epoch; NaN if it was not recorded."""
    if len(run.predictions):
        right = right_images(run)
        return float(right.iloc[-1].mean()) if right.size else float("nan")
    if "val_accuracy" in run.epochs.columns:
        scores: pd.Series = run.epochs["val_accuracy"].dropna()
        return float(scores.iloc[-1]) if len(scores) else float("nan")
    return float("nan")
