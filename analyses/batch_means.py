"""The mean of a series of dependent steps, with an interval and a test against 0."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analyses.statistics import MIN_STEPS, block_length

FEWEST_BATCHES = 3
MOST_BATCHES = 20


@dataclass(frozen=True)
class BatchMean:
    """A mean over steps.

    Fields:
        steps: how many were finite.
        value: their mean; None where there was none.
        error: standard error; None with fewer than eight steps.
        batches: number of batches the error comes from; Student's t has one degree less.
        p_value: two-sided, of a mean of 0; None without error.
    """

    steps: int
    value: float | None
    error: float | None
    batches: int
    p_value: float | None

    def interval(self, level: float = 0.95) -> tuple[float, float] | tuple[None, None]:
        """Student's interval over the batches."""
        if self.value is None or self.error is None:
            return None, None
        half = float(stats.t.ppf((1 + level) / 2, self.batches - 1)) * self.error
        return self.value - half, self.value + half


def batch_mean(series: ArrayLike) -> BatchMean:
    """Mean of a series of shape [steps] by non-overlapping batch means (Schmeiser 1982).

    Batches are twice as long as `block_length`, so that their means are nearly independent; from
    three to twenty of them. Series that depend over more than a sixth of their length leave three
    batches, which are then not quite independent: p-values come out somewhat too small.
    """
    array = np.asarray(series, dtype=float)
    array = array[np.isfinite(array)]
    steps = len(array)
    value = float(array.mean()) if steps else None
    if steps < MIN_STEPS:
        return BatchMean(steps, value, None, 0, None)
    batches = min(max(steps // (2 * block_length(array)), FEWEST_BATCHES), MOST_BATCHES)
    means = np.array([part.mean() for part in np.array_split(array, batches)])
    error = float(stats.sem(means))
    if error == 0:
        return BatchMean(steps, value, 0.0, batches, 1.0 if value == 0 else 0.0)
    p_value = float(2 * stats.t.sf(abs(float(array.mean())) / error, batches - 1))
    return BatchMean(steps, value, error, batches, p_value)
