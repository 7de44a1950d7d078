"""The strongest of several rank correlations over epochs, with a permutation test.

Series over epochs are autocorrelated and share the course of training. Both make independent
series look related. The permutations here therefore keep each series as it is: they only change
which series is paired with which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations as orders
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from analyses.statistics import Array
from analyses.statistics.basics.ranks import ranks
from analyses.statistics.bootstrap import RESAMPLES

Indices = NDArray[np.int64]

MIN_SEEDS_TO_SWAP = 4  # four seeds can be swapped in 4! = 24 ways: smallest p-value 0.042


@dataclass(frozen=True)
class StrongestAssociation:
    """The strongest of several rank correlations, with its p-value among all of them.

    Fields:
        correlations: Spearman's rho per quantity, steady learning removed, averaged over runs.
        strongest: index of the quantity with the largest |rho|.
        p_value: of the largest |rho| among all quantities.
        smallest_p: the smallest p-value that the test can give.
        critical_rho: 95 % quantile of the largest |rho| if nothing is related.
        observations: number of responses in all runs together.
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
        """Simultaneous 95 % interval of correlation `index`: `critical_rho` either side, as z."""
        if self.critical_rho >= 1:
            return -1.0, 1.0
        centre = np.arctanh(np.clip(self.correlations[index], -0.999999, 0.999999))
        half = np.arctanh(self.critical_rho)
        return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def steady_learning_basis(epochs: int) -> Array:
    """Basis of steady learning over `epochs` consecutive changes: 1 and 1/k, shape [epochs, 2].

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

    Steady learning is first removed from every series, by least squares. Each permutation records
    the largest |rho| over all quantities (Westfall & Young 1993), so the p-value accounts for the
    number of quantities.

    With four runs or more, the test swaps the responses among the runs. It is exact, whatever the
    dependence within a run and whatever course all runs share. With fewer runs, the test rotates
    the response of each run by a random number of epochs. Rotation keeps the dependence, except
    where the end meets the start. With the steady course left in, a course that all series share
    may look like a link; with it removed, the test rejects a little too often. So the p-value is
    the larger of the two.

    Args:
        quantities: one array of shape [quantities, epochs] per run, all finite.
        responses: one array of shape [epochs] per run; the same epochs in all runs.
        permutations: their largest number; if fewer are possible, all are used.
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
    """Share of draws [draws, quantities] whose largest |rho| reaches that of the first draw."""
    largest = np.abs(draws).max(axis=1)
    # The tolerance makes a permutation equal to the identity count as a tie.
    return float((largest >= largest[0] - 1e-12).mean())


def _swaps(runs: int, permutations: int, generator: np.random.Generator) -> Indices:
    """Permutations of `runs` items, shape [permutations, runs]; the first is the identity."""
    if factorial(runs) <= permutations:
        return np.array(list(orders(range(runs))))
    keys = generator.random((permutations - 1, runs))
    return np.vstack([np.arange(runs), np.argsort(keys, axis=1)])


def _rotations(
    lengths: Sequence[int], permutations: int, generator: np.random.Generator
) -> Indices:
    """Rotations of series of these lengths, shape [permutations, runs]; the first is zero."""
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
    """Series of shape [..., epochs] without steady learning."""
    basis = steady_learning_basis(series.shape[-1])
    rest: Array = series - (series @ basis) @ basis.T
    # If a series is steady learning only, the rest is rounding error: it must not be ranked.
    scale = np.abs(series).max(axis=-1, keepdims=True)
    return np.where(np.abs(rest) > 1e-9 * scale, rest, 0.0)


def _standard_ranks(values: Array) -> Array:
    """Ranks along the last axis, centred and of norm 1: their inner product is Spearman's rho."""
    ranked = ranks(values)
    ranked = ranked - ranked.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(ranked, axis=-1, keepdims=True)
    scaled: Array = np.divide(ranked, norm, out=np.zeros_like(ranked), where=norm > 0)
    return scaled
