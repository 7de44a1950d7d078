"""Intervals of a mean over seeds, if each seed's value is itself a mean over sampled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyses.statistics import Array
from analyses.statistics.bootstrap import RESAMPLES, image_weights
from analyses.statistics.means import MIN_SEEDS

SEED_DRAWS_PER_IMAGE_DRAW = 10  # with few seeds the tails are long


@dataclass(frozen=True)
class SeedValues:
    """The values of one seed by image, in several rows, e.g. one per epoch.

    Fields:
        rows: shape [rows, images].
        images: identity of each image, shape [images]; an image that several seeds share is drawn
            for all of them at once. None if `rows` holds one column that is already a mean.
    """

    rows: Array
    images: NDArray[np.int64] | None


@dataclass(frozen=True)
class MeanOverSeeds:
    """Means over seeds by row, with the deviations of bootstrap resamples.

    Fields:
        seeds: number of seeds.
        values: shape [rows].
        by_seed: shape [seeds, rows].
        seed_sd: standard deviation between seeds, shape [rows]; None with a single seed.
        image_sd: the part of `seed_sd` that comes from sampled images, shape [rows].
        deviations: shape [draws, rows]; None if there is no interval.
        level: coverage of the intervals.
    """

    seeds: int
    values: Array
    by_seed: Array
    seed_sd: Array | None
    image_sd: Array
    deviations: Array | None
    level: float

    def pointwise_interval(self, row: int) -> tuple[float, float] | tuple[None, None]:
        """The interval of one row, symmetric about its value."""
        half = self.band_half_width(slice(row, row + 1 or None))
        if half is None:
            return None, None
        return float(self.values[row]) - half, float(self.values[row]) + half

    def band_half_width(self, rows: slice) -> float | None:
        """Half the height of a band that holds all of `rows` at once (maximum statistic).

        The band has the same height everywhere. With few seeds the standard deviation of each row
        is poorly known; dividing by it would make the band too narrow where it happens to be small.
        """
        if self.deviations is None:
            return None
        return float(np.quantile(np.abs(self.deviations[:, rows]).max(axis=1), self.level))


def mean_over_seeds(
    groups: Sequence[SeedValues], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> MeanOverSeeds:
    """Bootstrap a mean over seeds: seeds, then images within them.

    Images are drawn with replacement, the same ones for all rows and for all seeds that share
    them. This gives the means of seeds a variance w, from sampled images alone. Seeds are drawn by
    normal multipliers of their deviations from the mean (van der Vaart & Wellner 1996, section
    2.9). These deviations are shrunk from variance s^2 to max(s^2 - w, 0), so that sampled images
    do not count twice: the total is max(s^2, w) / seeds, or more if seeds share images. Each draw
    is divided by sqrt(chi^2 / (seeds - 1)). This gives Student's intervals if w is 0, and wider
    intervals than necessary if seeds differ little. With fewer than three seeds only images are
    drawn, and the interval says nothing about other seeds.

    Raises `ValueError` without seeds, or if their numbers of rows differ.
    """
    if not groups or len({len(group.rows) for group in groups}) > 1:
        raise ValueError("mean_over_seeds needs at least one seed, and as many rows of each")
    generator = np.random.default_rng(seed)
    seeds = len(groups)
    by_seed = np.stack([group.rows.mean(axis=1) for group in groups])
    values = by_seed.mean(axis=0)
    moved = _image_deviations(groups, by_seed, resamples, seed)
    known = moved is not None
    moved = np.zeros((resamples, *by_seed.shape)) if moved is None else moved
    seed_sd = by_seed.std(axis=0, ddof=1) if seeds > 1 else None
    # With one seed, all of the sampling variance comes from the images.
    image_variance = (
        moved.var(axis=1, ddof=1).mean(axis=0) if seeds > 1 else moved[:, 0].var(axis=0)
    )
    deviations = moved.mean(axis=1) if known or seeds >= MIN_SEEDS else None
    if deviations is not None and seed_sd is not None and seeds >= MIN_SEEDS:
        left = np.maximum(seed_sd**2 - image_variance, 0.0)
        shrunk = np.sqrt(np.divide(left, seed_sd**2, out=np.zeros_like(left), where=seed_sd > 0))
        drawn = (SEED_DRAWS_PER_IMAGE_DRAW * resamples, seeds)
        multipliers = generator.standard_normal(drawn) / (seeds * (seeds - 1)) ** 0.5
        deviations = np.tile(deviations, (SEED_DRAWS_PER_IMAGE_DRAW, 1))
        deviations += multipliers @ ((by_seed - values) * shrunk)
        deviations /= np.sqrt(generator.chisquare(seeds - 1, size=(drawn[0], 1)) / (seeds - 1))
    return MeanOverSeeds(
        seeds, values, by_seed, seed_sd, np.sqrt(image_variance), deviations, level
    )


def _image_deviations(
    groups: Sequence[SeedValues], by_seed: Array, resamples: int, seed: int
) -> Array | None:
    """Deviations of each seed's means under resampled images, shape [resamples, seeds, rows]."""
    known = [group.images for group in groups if group.images is not None]
    if len(known) < len(groups):
        return None
    union = np.unique(np.concatenate(known))
    weights = image_weights(len(union), resamples, seed)
    moved = np.empty((resamples, *by_seed.shape))
    for index, (group, images) in enumerate(zip(groups, known, strict=True)):
        own = weights[:, np.searchsorted(union, images)]
        total = np.maximum(own.sum(axis=1, keepdims=True), 1.0)
        moved[:, index] = own @ (group.rows - by_seed[index][:, None]).T / total
    return moved
