"""Statistics that several analyses share: intervals, paired tests, bootstraps.

Every function is deterministic: random ones take a seed and draw from their own generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analyses.result import Verdict

Array = NDArray[np.float64]

MIN_STEPS = 8  # fewer steps than this say next to nothing about their own variability
MIN_SEEDS = 3  # from here on the seeds themselves give the interval
RESAMPLES = 2000


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) where there is no trial."""
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class PairedChange:
    """The change of accuracy between two sets of predictions on the same images.

    Fields:
        gained, lost: images right in the second only, and in the first only.
        images: number of images.
        p_value: exact two-sided McNemar test (McNemar 1947): `gained` is Binomial(gained + lost,
            1/2) where nothing but chance moved the predictions.
    """

    gained: int
    lost: int
    images: int
    p_value: float

    @property
    def change(self) -> float:
        """Accuracy of the second less that of the first, as a fraction."""
        return (self.gained - self.lost) / self.images

    @property
    def variance(self) -> float:
        """Sampling variance of `change`: (b + c)/n^2 - (b - c)^2/n^3."""
        n, b, c = self.images, self.gained, self.lost
        return (b + c) / n**2 - (b - c) ** 2 / n**3

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval of `change`."""
        half = float(stats.norm.ppf((1 + level) / 2)) * self.variance**0.5
        return self.change - half, self.change + half


def paired_change(before: ArrayLike, after: ArrayLike) -> PairedChange:
    """Compare two boolean vectors of shape [images]: was each image classified rightly?"""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return PairedChange(gained, lost, len(first), p_value)


def image_weights(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """How often each image is drawn in each bootstrap resample, shape [resamples, images]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(float)


def means_over_images(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means of `values`, shape [images], over resampled images: shape [resamples]."""
    array = np.asarray(values, dtype=float)
    means: Array = image_weights(len(array), resamples, seed) @ array / len(array)
    return means


def lag_one_autocorrelation(series: ArrayLike) -> float:
    """Lag-one autocorrelation of a series of shape [steps]; 0 where it is constant."""
    array = np.asarray(series, dtype=float)
    centred = array - array.mean()
    power = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0


def block_length(series: ArrayLike) -> int:
    """Length of blocks for resampling a dependent series of shape [steps].

    Carlstein 1986, equation for an AR(1) series: (2 phi / (1 - phi^2))^(2/3) n^(1/3) with the
    measured lag-one autocorrelation phi; at least 1, at most a third of the series.
    """
    length = len(np.asarray(series))
    phi = min(max(lag_one_autocorrelation(series), 0.0), 0.99)
    blocks = (2 * phi / (1 - phi**2)) ** (2 / 3) * length ** (1 / 3)
    return int(min(max(round(blocks), 1), max(length // 3, 1)))


def moving_block_indices(
    length: int, block: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.int64]:
    """Indices of moving-block bootstrap resamples, shape [resamples, length].

    Blocks run over the end to the start (Politis & Romano 1992, the circular variant), so that
    the first and last steps are drawn as often as any other and means stay centred.
    """
    generator = np.random.default_rng(seed)
    blocks = -(-length // block)
    starts = generator.integers(0, length, size=(resamples, blocks))
    indices = (starts[:, :, None] + np.arange(block)) % length
    return indices.reshape(resamples, -1)[:, :length]


def block_bootstrap(
    series: ArrayLike,
    statistic: Callable[[Array], Array],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Array:
    """`statistic` of moving-block resamples of a series of shape [steps], shape [resamples].

    `statistic` takes an array of shape [resamples, steps] and reduces its last axis.
    """
    array = np.asarray(series, dtype=float)
    return statistic(array[moving_block_indices(len(array), block_length(array), resamples, seed)])


@dataclass(frozen=True)
class Mean:
    """A mean over steps and seeds with its interval; None where it could not be had."""

    value: float | None
    low: float | None
    high: float | None
    method: str


def mean_over_steps(series: Sequence[ArrayLike], level: float = 0.95, seed: int = 0) -> Mean:
    """Mean of one series of steps per seed, each seed weighing the same.

    `series` holds one vector of shape [steps] per seed; what is not finite is left out. The
    interval is Student's over seeds from three seeds on, else from a moving-block bootstrap over
    the steps of each seed; with fewer than eight steps there is none.
    """
    arrays = [np.asarray(one, dtype=float) for one in series]
    kept = [one[np.isfinite(one)] for one in arrays]
    kept = [one for one in kept if len(one)]
    if not kept:
        return Mean(None, None, None, "no finite value was recorded")
    means = np.array([one.mean() for one in kept])
    value = float(means.mean())
    if len(kept) >= MIN_SEEDS:
        half = float(stats.t.ppf((1 + level) / 2, len(kept) - 1) * stats.sem(means))
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


def verdict_above(low: float | None, high: float | None, bound: float) -> Verdict:
    """Supported where the whole interval lies above `bound`, contradicted where below."""
    if low is None or high is None or not (np.isfinite(low) and np.isfinite(high)):
        return Verdict.INCONCLUSIVE
    if low > bound:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if high < bound else Verdict.INCONCLUSIVE


def verdict_below(low: float | None, high: float | None, bound: float) -> Verdict:
    """Supported where the whole interval lies below `bound`, contradicted where above."""
    swapped = {
        Verdict.SUPPORTED: Verdict.CONTRADICTED,
        Verdict.CONTRADICTED: Verdict.SUPPORTED,
        Verdict.INCONCLUSIVE: Verdict.INCONCLUSIVE,
    }
    return swapped[verdict_above(low, high, bound)]


def _percentiles(values: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
