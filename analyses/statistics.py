"""Statistics that several analyses share: intervals, paired tests, bootstraps, permutations.

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
MIN_ROTATIONS = 21  # fewer cannot give a p-value below 0.05


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


@dataclass(frozen=True)
class Association:
    """The strongest of several rank correlations, tested as the strongest.

    Fields:
        correlations: Spearman's rho per candidate, averaged over runs.
        strongest: index of the candidate with the largest |rho|.
        p_value: of that largest |rho| under block permutation of the response.
        observations: number of responses in all runs.
    """

    correlations: tuple[float, ...]
    strongest: int
    p_value: float
    observations: int


def strongest_association(
    candidates: Sequence[Array],
    responses: Sequence[Array],
    permutations: int = RESAMPLES,
    seed: int = 0,
) -> Association:
    """Test the largest |Spearman rho| between candidates and a response over several runs.

    `candidates` holds one array of shape [candidates, epochs] per run, `responses` one of shape
    [epochs]; all finite. Under the null hypothesis the response of each run is rotated by a random
    number of epochs, which keeps the dependence within both series. Runs too short for enough
    rotations have the blocks of the response shuffled as well (twice `block_length`, which is
    meant for means), which keeps dependence over short times only. The largest |rho| over all
    candidates is recorded each time (Westfall & Young 1993): having looked at many is paid for.
    """
    generator = np.random.default_rng(seed)
    total = sum(len(response) for response in responses)
    rotations = np.prod([float(len(response)) for response in responses])
    observed = np.zeros(len(candidates[0]))
    null = np.zeros((permutations, len(candidates[0])))
    for candidate, response in zip(candidates, responses, strict=True):
        share = len(response) / total
        ranks, target = _standard_ranks(candidate), _standard_ranks(response[None])[0]
        block = len(response) if rotations >= MIN_ROTATIONS else _shuffled_block(response)
        order = _block_permutations(len(response), block, permutations, generator)
        observed += share * (ranks @ target)
        null += share * (target[order] @ ranks.T)
    largest = np.abs(null).max(axis=1)
    strongest = int(np.abs(observed).argmax())
    # The smallest tolerance that still counts a permutation equal to the identity as a tie.
    reached = int((largest >= abs(observed[strongest]) - 1e-12).sum())
    return Association(
        tuple(float(rho) for rho in observed),
        strongest,
        (1 + reached) / (1 + permutations),
        total,
    )


def spearman_interval(rho: float, observations: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a Spearman correlation: Fisher's z with Fieller's variance 1.06/(n - 3).

    Fieller, Hartley & Pearson 1957; (-1, 1) with fewer than five observations.
    """
    if observations < 5:
        return -1.0, 1.0
    half = float(stats.norm.ppf((1 + level) / 2)) * (1.06 / (observations - 3)) ** 0.5
    centre = np.arctanh(np.clip(rho, -0.999999, 0.999999))
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


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


def _standard_ranks(values: Array) -> Array:
    """Ranks along the last axis, centred and of norm 1: their inner product is Spearman's rho."""
    ranks = stats.rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(ranks, axis=-1, keepdims=True)
    scaled: Array = np.divide(ranks, norm, out=np.zeros_like(ranks), where=norm > 0)
    return scaled


def _shuffled_block(series: Array) -> int:
    """Length of the blocks to shuffle: single epochs where the series shows no dependence."""
    block = block_length(series)
    return 1 if block == 1 else min(2 * block, max(len(series) // 3, 1))


def _block_permutations(
    length: int, block: int, permutations: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Random orders of `length` positions, whole blocks kept, shape [permutations, length]."""
    groups = np.arange(length) // block
    keys = generator.random((permutations, int(groups[-1]) + 1))[:, groups]
    # A stable sort by the block's random key moves blocks and keeps the order within them.
    order = np.argsort(keys, axis=1, kind="stable")
    rotation = generator.integers(0, length, size=(permutations, 1))
    shuffled: NDArray[np.int64] = (order + rotation) % length
    return shuffled
