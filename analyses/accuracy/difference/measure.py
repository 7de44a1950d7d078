"""The difference in validation accuracy between two networks whose runs are paired by seed."""

from dataclasses import dataclass

import numpy as np

from analyses.reading.pairs import NetworkPair, runs_of_same_seed
from analyses.reading.predictions import right_images
from analyses.reading.runs import seed_label
from analyses.statistics import Array
from analyses.statistics.means import MIN_SEEDS
from analyses.statistics.proportions import paired_change
from analyses.statistics.seeds_and_images import MeanOverSeeds, SeedValues, mean_over_seeds
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Experiment, Run

TOO_FEW_SEEDS = "too few to show how seeds differ"
MEAN_ROW = -1  # the row of `DifferenceCurve.means` that averages all epochs


@dataclass(frozen=True)
class MatchedRuns:
    """Which images both runs of one seed classified correctly.

    Fields:
        seed: their seed.
        epochs: the epochs of both runs.
        plain, residual: 1 for right and 0 for wrong, on the images of both runs, shape [epochs,
            images]; if predictions are missing, the recorded accuracies, shape [epochs, 1].
        images: identities of the images; None if predictions are missing.
        same_images: whether both runs were validated on exactly the same images.
    """

    seed: str
    epochs: tuple[int, ...]
    plain: Array
    residual: Array
    images: tuple[int, ...] | None
    same_images: bool


@dataclass(frozen=True)
class DifferenceCurve:
    """Accuracy of the residual network less that of the plain one, as fractions.

    Fields:
        epochs: the epochs that all pairs of runs have.
        means: one row per epoch, and a last row for the mean over epochs.
        method: how the intervals were computed, and from how many observations.
    """

    epochs: tuple[int, ...]
    means: MeanOverSeeds
    method: str


@dataclass(frozen=True)
class PairComparison:
    """A pair of networks with its runs matched.

    Fields:
        pair: the names of the networks.
        runs: the runs of each seed, (plain, residual).
        shorter: seeds that are left out, since their runs have fewer common epochs.
        scores: with running batch-norm statistics.
        re_estimated_scores: with re-estimated statistics; may be empty.
        curve: the difference by epoch of `scores`.
        re_estimated_curve: that of `re_estimated_scores`; None if not recorded.
    """

    pair: NetworkPair
    runs: list[tuple[Run, Run]]
    shorter: list[MatchedRuns]
    scores: list[MatchedRuns]
    re_estimated_scores: list[MatchedRuns]
    curve: DifferenceCurve
    re_estimated_curve: DifferenceCurve | None


@dataclass(frozen=True)
class AccuracyDifference:
    """Accuracy of the residual network less that of the plain one, averaged over seeds.

    Fields:
        seeds: number of pairs of runs.
        value, low, high: mean difference with its 95 % interval, as fractions; the interval is
            None without predictions and with fewer than three seeds.
        p_value: exact McNemar test; None with several seeds or without predictions.
        method: how the interval was computed.
    """

    seeds: int
    value: float
    low: float | None
    high: float | None
    p_value: float | None
    method: str


def compare_pair(experiment: Experiment, pair: NetworkPair) -> PairComparison | None:
    """Match the runs of `pair`; None if no seed has validation accuracies of both."""
    runs = runs_of_same_seed(experiment, pair)
    scores, shorter = split_by_length(matched_runs(runs))
    running = difference_curve(scores)
    if running is None:
        return None
    kept = {one.seed for one in scores}
    fresh = [one for one in matched_runs(runs, "recalibration") if one.seed in kept]
    return PairComparison(pair, runs, shorter, scores, fresh, running, difference_curve(fresh))


def matched_runs(pairs: list[tuple[Run, Run]], table: str = "predictions") -> list[MatchedRuns]:
    """Both runs of each pair (plain, residual) on the same images and epochs.

    `table` is `predictions`, or `recalibration` for re-estimated batch-norm statistics. If no pair
    has predictions, the scalar `val_accuracy` is used instead.
    """
    found = [both for plain, residual in pairs if (both := _by_image(plain, residual, table))]
    if found or table != "predictions":
        return found
    return [both for plain, residual in pairs if (both := _by_scalar(plain, residual))]


def split_by_length(matched: list[MatchedRuns]) -> tuple[list[MatchedRuns], list[MatchedRuns]]:
    """The pairs of runs with the most common epochs, and the shorter ones.

    A seed that is still in training, or was stopped, would shorten the curve of all seeds.
    """
    longest = max((len(one.epochs) for one in matched), default=0)
    kept = [one for one in matched if len(one.epochs) == longest]
    return kept, [one for one in matched if len(one.epochs) < longest]


def difference_curve(matched: list[MatchedRuns]) -> DifferenceCurve | None:
    """The difference by epoch, and its mean over epochs; None if no epoch is common to all."""
    common = set.intersection(*(set(one.epochs) for one in matched)) if matched else set()
    if not common:
        return None
    epochs = tuple(sorted(common))
    groups = []
    for one in matched:
        gaps = (one.residual - one.plain)[[one.epochs.index(epoch) for epoch in epochs]]
        groups.append(SeedValues(np.vstack([gaps, gaps.mean(axis=0)]), _identities(one)))
    return DifferenceCurve(epochs, mean_over_seeds(groups), _method(matched))


def accuracy_difference(matched: list[MatchedRuns], best: bool = False) -> AccuracyDifference:
    """The difference at the last epoch of each seed, or with each run at its best epoch.

    `matched` holds at least one pair of runs; leave out shorter ones first, with
    `split_by_length`.
    """
    picked = [(_pick(one.plain, best), _pick(one.residual, best)) for one in matched]
    groups = [
        SeedValues((residual - plain)[None], _identities(one))
        for one, (plain, residual) in zip(matched, picked, strict=True)
    ]
    mean = mean_over_seeds(groups)
    single = len(matched) == 1 and matched[0].images is not None
    test = paired_change(*picked[0]).p_value if single else None
    low, high = mean.pointwise_interval(0)
    return AccuracyDifference(
        len(matched), float(mean.values[0]), low, high, test, _method(matched)
    )


def _by_image(plain: Run, residual: Run, table: str) -> MatchedRuns | None:
    if not (len(plain.table(table)) and len(residual.table(table))):
        return None
    first, second = (right_images(run, table) for run in (plain, residual))
    epochs = first.index.intersection(second.index)
    images = first.columns.intersection(second.columns)
    if not (len(epochs) and len(images)):
        return None
    return MatchedRuns(
        seed=seed_label(plain),
        epochs=tuple(int(epoch) for epoch in epochs),
        plain=first.loc[epochs, images].to_numpy(dtype=float),
        residual=second.loc[epochs, images].to_numpy(dtype=float),
        images=tuple(int(image) for image in images),
        same_images=len(images) == first.shape[1] == second.shape[1],
    )


def _by_scalar(plain: Run, residual: Run) -> MatchedRuns | None:
    scores = []
    for run in (plain, residual):
        if "val_accuracy" not in run.epochs.columns:
            return None
        scores.append(run.epochs.set_index("epoch")["val_accuracy"].astype(float).dropna())
    common = scores[0].index.intersection(scores[1].index)
    if not len(common):
        return None
    first, second = (one.loc[common].to_numpy()[:, None] for one in scores)
    epochs = tuple(int(epoch) for epoch in common)
    return MatchedRuns(seed_label(plain), epochs, first, second, None, True)


def _pick(right: Array, best: bool) -> Array:
    row: Array = right[int(right.mean(axis=1).argmax()) if best else -1]
    return row


def _identities(one: MatchedRuns) -> "np.ndarray[tuple[int], np.dtype[np.int64]] | None":
    return None if one.images is None else np.array(one.images, dtype=np.int64)


def _method(matched: list[MatchedRuns]) -> str:
    seeds = len(matched)
    if matched[0].images is None:
        if seeds < MIN_SEEDS:
            return "no interval: no predictions on the same images"
        return f"Student interval over {seeds} seeds, from recorded accuracies"
    images = plural(len(matched[0].images), "validation image")
    if seeds >= MIN_SEEDS:
        return f"bootstrap over {seeds} seeds, then {images} each, Student's correction for seeds"
    if seeds > 1:
        return f"bootstrap over {images} within each of {seeds} seeds ({TOO_FEW_SEEDS})"
    return f"bootstrap over {images} of one seed (says nothing about other seeds)"
