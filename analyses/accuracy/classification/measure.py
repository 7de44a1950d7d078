"""The predictions of runs at their best epochs, and the class with the lowest recall."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.reading.predictions import (
    accuracy_by_epoch,
    correctness,
    predictions_of,
    right_images,
)
from analyses.reading.runs import seed_label
from analyses.result import Estimate, Verdict
from analyses.statistics.proportions import wilson_interval
from analyses.statistics.verdicts import verdict_above
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class BestEpoch:
    """The predictions of one run at the epoch of its highest validation accuracy.

    The epoch is that of the kept checkpoint. All other fields count each distinct image once.

    Fields:
        network, seed: network and seed of the run.
        epoch: the first epoch that reaches the highest accuracy.
        accuracy, low, high: accuracy at that epoch, with Wilson's 95 % interval.
        predictions: columns target and prediction, one row per image.
    """

    network: str
    seed: str
    epoch: int
    accuracy: float
    low: float
    high: float
    predictions: pd.DataFrame


def best_epoch(run: Run) -> BestEpoch:
    """The epoch of `run` with the highest validation accuracy."""
    epoch = int(correctness(run.predictions).mean(axis=1).idxmax())
    distinct = predictions_of(run)
    score = accuracy_by_epoch(right_images(run)).set_index("epoch").loc[epoch]
    rows = distinct[distinct["epoch"] == epoch][["target", "prediction"]].astype(int)
    accuracy, low, high = (float(score[name]) for name in ("accuracy", "low", "high"))
    return BestEpoch(run.network, seed_label(run), epoch, accuracy, low, high, rows)


def confusion(predictions: pd.DataFrame, classes: list[str]) -> NDArray[np.int64]:
    """Counts of shape [true class, predicted class]."""
    # Not scikit-learn's: importing it takes longer than all of this analysis.
    pairs = predictions[["target", "prediction"]].to_numpy(dtype=np.int64)
    pairs = pairs[((pairs >= 0) & (pairs < len(classes))).all(axis=1)]
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    return counts


def pooled_predictions(best: list[BestEpoch]) -> pd.DataFrame:
    """The predictions of all runs at their best epochs."""
    return pd.concat([one.predictions for one in best])


@dataclass(frozen=True)
class LowestRecall:
    """The class with the lowest recall, at the best epochs of all runs of a network together.

    Fields:
        name: name of the class.
        recall: in percent, with Wilson's interval, Bonferroni-corrected for the number of classes.
        chance: recall of guessing among all classes, as a fraction.
        never: classes that occur but are never predicted.
        verdict: on the hypothesis that every class is found more often than chance.
    """

    name: str
    recall: Estimate
    chance: float
    never: tuple[str, ...]
    verdict: Verdict


def lowest_recall(best: list[BestEpoch], classes: list[str]) -> LowestRecall:
    """The class with the lowest recall in the predictions of `best` together."""
    counts = confusion(pooled_predictions(best), classes)
    support, right = counts.sum(axis=1), counts.diagonal()
    present = np.flatnonzero(support)
    lowest = int(present[np.argmin(right[present] / support[present])])
    recall, chance = right[lowest] / support[lowest], 1 / len(classes)
    level = 1 - 0.05 / len(present)
    low, high = wilson_interval(int(right[lowest]), int(support[lowest]), level)
    never = tuple(classes[index] for index in present if counts[:, index].sum() == 0)
    estimate = Estimate(
        name=f"lowest recall, that of class {classes[lowest]}",
        value=float(100 * recall),
        low=100 * low,
        high=100 * high,
        unit="%",
        level=level,
        method=f"Wilson interval, {plural(int(support[lowest]), 'image')}",
    )
    verdict = Verdict.CONTRADICTED if never else verdict_above(low, high, chance)
    return LowestRecall(classes[lowest], estimate, chance, never, verdict)
