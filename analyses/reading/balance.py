"""Balanced accuracy: the mean of the classes' accuracies, for classes of different sizes."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analyses.reading.predictions import predictions_of
from analyses.statistics.proportions import mean_of_proportions
from analyses.wording.numbers import interval_text, percent
from gradflow.runs.reading.run import Run

# The ratio of class sizes from which on the training command, too, shows the balanced accuracy.
IMBALANCE = 1.5
COLUMNS = ("epoch", "balanced", "balanced_low", "balanced_high")
SOURCES = (
    "Brodersen et al. 2010, The balanced accuracy and its posterior distribution",
    "Zou & Donner 2008, Construction of confidence limits about effect measures",
)


def balanced_by_epoch(run: Run) -> pd.DataFrame:
    """The balanced accuracy with its 95 % interval: columns `COLUMNS`, as fractions.

    Without rows if the largest class has less than 1.5 times as many distinct validation images as
    the smallest, so that the accuracy says the same, or if there are no predictions.
    """
    rows = predictions_of(run) if len(run.predictions) else run.predictions
    if len(rows):
        sizes = rows[rows["epoch"] == rows["epoch"].max()]["target"].value_counts()
        if len(sizes) > 1 and sizes.max() >= IMBALANCE * sizes.min():
            right = rows.assign(right=rows["prediction"] == rows["target"])
            found = []
            for epoch, of_epoch in right.groupby("epoch"):
                of_class = of_epoch.groupby("target")["right"]
                counts = of_class.sum().to_numpy(int), of_class.size().to_numpy(int)
                value = float(np.mean(counts[0] / counts[1]))
                found.append((float(str(epoch)), value, *mean_of_proportions(*counts)))
            return pd.DataFrame(found, columns=list(COLUMNS))
    return pd.DataFrame(columns=list(COLUMNS), dtype=float)


def balanced_words(runs: Iterable[Run]) -> str:
    """The balanced accuracy after the last epoch in words, the mean of `runs`; "" if balanced.

    The interval counts the images of one run only: more seeds are not more images.
    """
    frames = [frame for frame in map(balanced_by_epoch, runs) if len(frame)]
    if not frames:
        return ""
    last = pd.DataFrame([frame.iloc[-1] for frame in frames])
    value, low, high = (float(last[name].mean()) for name in COLUMNS[1:])
    return f"{percent(value)} {interval_text(low, high, percent)}"
