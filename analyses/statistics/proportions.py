"""Proportions on the same or on different images: intervals and paired tests."""

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from analyses.statistics.basics.distributions import normal_quantile, sign_test


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) if there is no trial.

    The formula is that of Newcombe (1998). scipy has it too, but only behind an exact test, which
    takes a hundred times as long.

    Raises `ValueError` if there are more successes than trials, or fewer than none.
    """
    if trials == 0:
        return 0.0, 1.0
    if not 0 <= successes <= trials:
        raise ValueError(f"there cannot be {successes} successes in {trials} trials")
    z = normal_quantile(0.5 + 0.5 * level)
    p = successes / trials
    denominator = 2 * (trials + z**2)
    centre = (2 * trials * p + z**2) / denominator
    delta = z / denominator * sqrt(4 * trials * p * (1 - p) + z**2)
    low = 0.0 if successes == 0 else centre - delta
    return low, 1.0 if successes == trials else centre + delta


def mean_of_proportions(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean of independent proportions, such as the recalls of classes.

    Each proportion has Wilson's interval; the squares of the distances to its ends add up (Zou &
    Donner 2008, equation 6). With one proportion, it is Wilson's.

    Args:
        successes, trials: counts of shape [proportions]; every proportion has a trial.
        level: of the interval.
    """
    right, sizes = np.asarray(successes, dtype=int), np.asarray(trials, dtype=int)
    ends = [wilson_interval(int(k), int(n), level) for k, n in zip(right, sizes, strict=True)]
    low, high = np.array(ends).T
    shares = right / sizes
    mean = float(shares.mean())
    down = float(np.sqrt(((shares - low) ** 2).sum())) / len(sizes)
    up = float(np.sqrt(((high - shares) ** 2).sum())) / len(sizes)
    return max(0.0, mean - down), min(1.0, mean + up)


@dataclass(frozen=True)
class PairedChange:
    """The change of accuracy between two sets of predictions on the same images.

    Fields:
        gained, lost: images that are right in the second only, and in the first only.
        images: number of images.
        p_value: exact two-sided McNemar test (McNemar 1947): `gained` is Binomial(gained + lost,
            1/2) if only chance changed the predictions.
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
        half = normal_quantile((1 + level) / 2) * self.variance**0.5
        return self.change - half, self.change + half


def paired_change(before: ArrayLike, after: ArrayLike) -> PairedChange:
    """Compare two boolean vectors of shape [images]: was each image classified correctly?"""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return PairedChange(gained, lost, len(first), _mcnemar(gained, lost))


@lru_cache(maxsize=1 << 14)  # several analyses compare the same epochs
def _mcnemar(gained: int, lost: int) -> float:
    return sign_test(gained, lost)
