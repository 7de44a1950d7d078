"""Rank correlations over the seeds of each network, with p-values for the strongest of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyses.statistics import Array
from analyses.statistics.basics.ranks import ranks, standard_scores
from analyses.statistics.bootstrap import RESAMPLES

MIN_SEEDS_TO_CORRELATE = (
    5  # seeds of a network: with fewer, no rank correlation differs from chance
)


@dataclass(frozen=True)
class SeedAssociations:
    """One entry per quantity; NaN if no network has enough seeds with differing values.

    Fields:
        correlations: Spearman's rho over seeds, averaged over networks by their number of seeds.
        p_values: permutation p-values with the maximum statistic over all quantities.
        runs: number of runs behind each.
    """

    correlations: tuple[float, ...]
    p_values: tuple[float, ...]
    runs: tuple[int, ...]


def seed_associations(
    quantities: Sequence[Array],
    responses: Sequence[Array],
    permutations: int = RESAMPLES,
    seed: int = 0,
) -> SeedAssociations:
    """Correlate quantities with a response over the seeds of each network.

    Under the null hypothesis the responses of a network's seeds are exchangeable: they are
    permuted within each network. Each permutation records the largest |rho| over quantities
    (Westfall & Young 1993, single-step maxT), so the p-values account for the number of
    quantities. The difference between the networks' means plays no part.

    Args:
        quantities: one array of shape [quantities, seeds] per network; a quantity with a value
            that is not finite, or the same in all seeds, does not count in that network.
        responses: one array of shape [seeds] per network, all finite.
    """
    generator = np.random.default_rng(seed)
    count = len(quantities[0])
    observed, null = np.zeros(count), np.zeros((permutations, count))
    runs = np.zeros(count)
    for values, response in zip(quantities, responses, strict=True):
        if len(response) < MIN_SEEDS_TO_CORRELATE or not np.ptp(response):
            continue
        usable = np.isfinite(values).all(axis=1) & (np.ptp(values, axis=1) > 0)
        # The inner product of two z-scores of ranks is Spearman's rho times their number.
        scores = np.zeros(values.shape)
        scores[usable] = standard_scores(ranks(values[usable]))
        target = standard_scores(ranks(response))
        order = generator.permuted(np.tile(np.arange(len(target)), (permutations, 1)), axis=1)
        observed += scores @ target
        null += target[order] @ scores.T
        runs += len(target) * usable
    with np.errstate(invalid="ignore"):
        rho, drawn = observed / runs, np.abs(null / runs)
    known = runs > 0
    largest = drawn[:, known].max(axis=1) if known.any() else np.empty(0)
    # The tolerance makes a permutation equal to the identity count as a tie.
    p_values = [
        (1 + int((largest >= abs(value) - 1e-12).sum())) / (1 + permutations)
        if np.isfinite(value)
        else float("nan")
        for value in rho
    ]
    return SeedAssociations(
        tuple(float(value) for value in rho), tuple(p_values), tuple(int(one) for one in runs)
    )
