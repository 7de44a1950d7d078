"""The mean of a series of dependent steps, with an interval and a test against a margin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analyses.statistics.basics.distributions import student_above, student_quantile
from analyses.statistics.basics.ranks import standard_error
from analyses.statistics.bootstrap import block_length
from analyses.statistics.means import MIN_STEPS

BLOCKS_PER_BATCH = (
    4  # 2 would do for the standard error, but not for the tails that multiple tests use
)
MIN_BATCHES = 5
MAX_BATCHES = 20


@dataclass(frozen=True)
class BatchMean:
    """A mean over steps.

    Fields:
        steps: number of finite steps.
        value: their mean; None if there are none.
        error: standard error; None with fewer than eight steps.
        batches: number of batches behind the error; Student's t has one degree of freedom less.
    """

    steps: int
    value: float | None
    error: float | None
    batches: int

    def interval(self, level: float = 0.95) -> tuple[float, float] | tuple[None, None]:
        """Student's interval over the batches."""
        if self.value is None or self.error is None:
            return None, None
        half = student_quantile((1 + level) / 2, self.batches - 1) * self.error
        return self.value - half, self.value + half

    def p_value(self, margin: float = 0.0) -> float | None:
        """p-value of the hypothesis that the true mean lies within +-margin; None without an error.

        Two-sided, the largest over these means: P(T > (|m| - margin) / e) + P(T > (|m| +
        margin) / e) (Murphy & Myors 1999, minimum-effect tests).
        """
        if self.value is None or self.error is None:
            return None
        size = abs(self.value)
        if self.error == 0:
            return float(size <= margin)
        ends = np.array([size - margin, size + margin]) / self.error
        return float(student_above(ends, self.batches - 1).sum())


def batch_mean(series: ArrayLike) -> BatchMean:
    """Mean of a series of shape [steps] by non-overlapping batch means (Schmeiser 1982).

    Batches are four times as long as `block_length`, so that their means are nearly independent;
    there are five to twenty of them. A series with long dependence leaves five batches, which are
    then not quite independent. Measured on AR(1) series of mean 0, a test at 5 % rejects 5.5 %
    (phi 0.5), 8 % (0.8) and 12 % (0.9) of series of 100 steps, and 5, 6 and 7 % of 200 steps.
    """
    array = np.asarray(series, dtype=float)
    array = array[np.isfinite(array)]
    steps = len(array)
    value = float(array.mean()) if steps else None
    if steps < MIN_STEPS:
        return BatchMean(steps, value, None, 0)
    batches = min(max(steps // (BLOCKS_PER_BATCH * block_length(array)), MIN_BATCHES), MAX_BATCHES)
    means = np.array([part.mean() for part in np.array_split(array, batches)])
    return BatchMean(steps, value, standard_error(means), batches)
