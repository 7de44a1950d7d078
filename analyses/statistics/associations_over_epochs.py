"""The strongest of several rank correlations, tested as the strongest, seeds and epochs respected.

Series over epochs are autocorrelated and share the course of training; both make independent
series look related. The null hypotheses here keep each series as it is and only change which is set
beside which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations as orders
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analyses.statistics import Array
from analyses.statistics.bootstrap import RESAMPLES

Indices = NDArray[np.int64]

MIN_SEEDS_TO_SWAP = 4  # with four there are 4! = 24 ways to swap seeds: smallest p-value 0.042


@dataclass(frozen=True)
class StrongestAssociation:
    """The strongest of several rank correlations, tested as the strongest.

    Fields:
        correlations: Spearman's rho per quantity, steady course removed, averaged over runs.
        strongest: index of the quantity with the largest |rho|.
        p_value: of that largest |rho|, among all quantities.
        smallest_p: the smallest p-value that the test could have given.
        critical_rho: what the largest |rho| stays below 95 times in 100 where nothing is related.
        observations: number of responses in all runs.
        permuted: what was permuted, in words.
    """

    correlations: tuple[float, ...]
    strongest: int
    p_value: float
    smallest_p: float
    critical_rho: float
    observations: int
    permuted: str

    def interval(self, index: int) -> tuple[float, float]:
        """Simultaneous 95 % interval of correlation `index`: Fisher's z plus and minus `chance`."""
        if self.critical_rho >= 1:
            return -1.0, 1.0
        centre = np.arctanh(np.clip(self.correlations[index], -0.999999, 0.999999))
        half = np.arctanh(self.critical_rho)
        return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def steady_learning_basis(epochs: int) -> Array:
    """What steady learning looks like in `epochs` consecutive values: 1 and 1/k, shape [epochs, 2].

    A curve whose changes are a + b/k, k = 1, 2, ..., rises linearly and logarithmically. The
    columns are orthonormal.
    """
    k = np.arange(1, epochs + 1)
    basis: Array = np.linalg.qr(np.stack([np.ones(epochs), 1 / k], axis=1))[0]
    return basis


def strongest_association(
    quantities: Sequence[Array],
    responses: Sequence[Array],
    permutations: int = RESAMPLES,
    seed: int = 0,
) -> StrongestAssociation:
    """Test the largest |Spearman rho| between quantities and a response over several runs.

    The steady course of training is taken out of every series first, by least squares. The largest
    |rho| over all quantities is recorded under each permutation (Westfall & Young 1993): having
    looked at many is paid for.

    From four runs on, the responses of the runs are swapped among them: exact whatever the
    dependence within a run, and whatever course all runs share. With fewer, the response of each
    run is rotated by a random number of epochs. That keeps dependence but for the seam, where a
    course that all share may pass for a link, and without the course rotated residuals fire a
    little too often; so the p-value is the larger of two tests, with the course and without it.

    Args:
        quantities: one array of shape [quantities, epochs] per run, all finite.
        responses: one array of shape [epochs] per run; the same epochs in all runs.
        permutations: at most so many; all of them where there are fewer.
    """
    plain = [_standard_ranks(one) for one in quantities], [_standard_ranks(r) for r in responses]
    without = (
        [_standard_ranks(_residuals(one)) for one in quantities],
        [_standard_ranks(_residuals(one)) for one in responses],
    )
    generator = np.random.default_rng(seed)
    if len(responses) >= MIN_SEEDS_TO_SWAP:
        rows = _swaps(len(responses), permutations, generator)
        draws = _swapped(*without, rows)
        p, permuted = _p_of_first(draws), "seeds swapped"
    else:
        rows = _rotations([len(one) for one in responses], permutations, generator)
        draws = _rotated(*without, rows)
        p = max(_p_of_first(draws), _p_of_first(_rotated(*plain, rows)))
        permuted = "epochs rotated within each seed"
    return StrongestAssociation(
        correlations=tuple(float(rho) for rho in draws[0]),
        strongest=int(np.abs(draws[0]).argmax()),
        p_value=p,
        smallest_p=1 / len(rows),
        critical_rho=float(np.quantile(np.abs(draws).max(axis=1), 0.95, method="higher")),
        observations=sum(map(len, responses)),
        permuted=permuted,
    )


def _p_of_first(draws: Array) -> float:
    """Share of draws, shape [draws, quantities], whose largest |rho| reaches that of the first."""
    largest = np.abs(draws).max(axis=1)
    # The smallest tolerance that still counts a permutation equal to the identity as a tie.
    return float((largest >= largest[0] - 1e-12).mean())


def _swaps(runs: int, permutations: int, generator: np.random.Generator) -> Indices:
    """Orders of `runs` things, shape [permutations, runs], the order as it is first."""
    if factorial(runs) <= permutations:
        return np.array(list(orders(range(runs))))
    keys = generator.random((permutations - 1, runs))
    return np.vstack([np.arange(runs), np.argsort(keys, axis=1)])


def _rotations(
    lengths: Sequence[int], permutations: int, generator: np.random.Generator
) -> Indices:
    """Rotations of series of these lengths, shape [permutations, runs], none rotated first."""
    if prod(lengths) <= permutations:
        return np.indices(tuple(lengths)).reshape(len(lengths), -1).T
    drawn = [generator.integers(0, length, permutations - 1) for length in lengths]
    return np.vstack([np.zeros(len(lengths), dtype=np.int64), np.stack(drawn, axis=1)])


def _swapped(quantities: Sequence[Array], responses: Sequence[Array], rows: Indices) -> Array:
    """Mean rho of each run's quantities with another run's response: [permutations, quantities]."""
    every = np.einsum("aqe,be->abq", np.stack(quantities), np.stack(responses))
    mean: Array = every[np.arange(len(responses)), rows].mean(axis=1)
    return mean


def _rotated(quantities: Sequence[Array], responses: Sequence[Array], rows: Indices) -> Array:
    """Mean rho of quantities with rotated responses: [permutations, quantities]."""
    total = np.zeros((len(rows), len(quantities[0])))
    for quantity, response, rotation in zip(quantities, responses, rows.T, strict=True):
        epochs = np.arange(len(response))
        turned = response[(epochs + epochs[:, None]) % len(response)]
        total += (turned @ quantity.T)[rotation]
    return total / len(responses)


def _residuals(series: Array) -> Array:
    """Series of shape [..., epochs] less their steady course."""
    basis = steady_learning_basis(series.shape[-1])
    rest: Array = series - (series @ basis) @ basis.T
    # What rounding leaves of a series that is all course must not be ranked.
    scale = np.abs(series).max(axis=-1, keepdims=True)
    return np.where(np.abs(rest) > 1e-9 * scale, rest, 0.0)


def _standard_ranks(values: Array) -> Array:
    """Ranks along the last axis, centred and of norm 1: their inner product is Spearman's rho."""
    ranks = stats.rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(ranks, axis=-1, keepdims=True)
    scaled: Array = np.divide(ranks, norm, out=np.zeros_like(ranks), where=norm > 0)
    return scaled
