"""Means over steps and seeds, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analyses.statistics import Array
from analyses.statistics.basics.distributions import student_quantile
from analyses.statistics.basics.ranks import standard_error
from analyses.statistics.bootstrap import block_bootstrap

MIN_STEPS = 8  # fewer steps say almost nothing about their variability

MIN_SEEDS = 3  # with fewer, the interval does not come from the spread of the seeds


@dataclass(frozen=True)
class Mean:
    """A mean over steps and seeds with its interval; None if it could not be computed."""

    value: float | None
    low: float | None
    high: float | None
    method: str


def mean_over_steps(series: Sequence[ArrayLike], level: float = 0.95, seed: int = 0) -> Mean:
    """Mean of one series of steps per seed; each seed has the same weight.

    `series` holds one vector of shape [steps] per seed; values that are not finite are
    left out. With three seeds or more, the interval is Student's over seeds. With fewer, it comes
    from a moving-block bootstrap over the steps of each seed; it needs eight steps.
    """
    arrays = [np.asarray(one, dtype=float) for one in series]
    kept = [one[np.isfinite(one)] for one in arrays]
    kept = [one for one in kept if len(one)]
    if not kept:
        return Mean(None, None, None, "no finite value was recorded")
    means = np.array([one.mean() for one in kept])
    value = float(means.mean())
    if len(kept) >= MIN_SEEDS:
        half = student_quantile((1 + level) / 2, len(kept) - 1) * standard_error(means)
        return Mean(value, value - half, value + half, f"Student interval over {len(kept)} seeds")
    shortest = min(len(one) for one in kept)
    if shortest < MIN_STEPS:
        return Mean(value, None, None, f"no interval: only {shortest} steps, {MIN_STEPS} needed")
    resampled = [
        block_bootstrap(one, lambda drawn: drawn.mean(axis=-1), seed=seed + index)
        for index, one in enumerate(kept)
    ]
    low, high = _percentiles(np.mean(resampled, axis=0), level)
    steps = sum(len(one) for one in kept)
    return Mean(value, low, high, f"moving-block bootstrap over {steps} steps")


def _percentiles(values: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
