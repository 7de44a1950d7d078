"""Bootstraps over images and over dependent steps; each has its own random generator."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyses.statistics import Array

RESAMPLES = 2000
# Weights that are kept: 8 MB of them.
_MOST_KEPT = 1_000_000


def image_weights(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """How often each image is drawn in each bootstrap resample, shape [resamples, images].

    The array cannot be written to: others may have got the same one.
    """
    few = images * resamples <= _MOST_KEPT
    return (_kept_weights if few else _weights)(images, resamples, seed)


def _weights(images: int, resamples: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    weights: Array = drawn.astype(float)
    weights.flags.writeable = False
    return weights


# Drawing takes long, and analyses ask for the same weights again and again.
_kept_weights = lru_cache(maxsize=8)(_weights)


def means_over_images(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means over resampled images of `values` [images]: shape [resamples]."""
    array = np.asarray(values, dtype=float)
    means: Array = image_weights(len(array), resamples, seed) @ array / len(array)
    return means


def lag_one_autocorrelation(series: ArrayLike) -> float:
    """Lag-one autocorrelation of a series of shape [steps]; 0 if it is constant."""
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

    A block that reaches the end goes on at the start (Politis & Romano 1992, circular), so that
    the first and last steps are drawn as often as any other and means stay centred.
    """
    generator = np.random.default_rng(seed)
    blocks = -(-length // block)
    starts = generator.integers(0, length, size=(resamples, blocks))
    indices = starts[:, :, None] + np.arange(block)
    past_the_end = indices >= length
    indices[past_the_end] %= length  # few: a division takes as long as everything else
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
