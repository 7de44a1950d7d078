"""How gradient norms change with depth, compared only between tensors of one shape."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_LAYERS = 3  # of one output shape: fewer are too few for a slope


def log_factors(logs: Array, depth: Array, stage: Array) -> Array:
    """Slope of the log norm against depth, negated: log factor per layer toward the input.

    Least squares with one slope for all stages and one intercept per stage, so that norms are only
    compared between layers of equal output shape. At each step, stages with fewer than three
    usable layers are left out.

    Args:
        logs: natural logarithms of the norms, shape [steps, layers]; NaN if there is none.
        depth, stage: of each layer, shape [layers].

    Returns: shape [steps]; NaN if no stage can be used.
    """
    products, squares = np.zeros(len(logs)), np.zeros(len(logs))
    for index in np.unique(stage):
        y, x = logs[:, stage == index], depth[stage == index]
        usable = np.isfinite(y)
        count = usable.sum(axis=1)
        centre = np.where(usable, x, 0).sum(axis=1) / np.maximum(count, 1)
        deviation = np.where(usable, x - centre[:, None], 0) * (count >= MIN_LAYERS)[:, None]
        products += (deviation * np.where(usable, y, 0)).sum(axis=1)
        squares += (deviation**2).sum(axis=1)
    factors = np.full(len(logs), np.nan)
    np.divide(-products, squares, out=factors, where=squares > 0)
    return factors


def factor_range(norms: Any, stage: Array, sizes: Array | None) -> tuple[Array, Array]:
    """Factor by which the gradient norm changes from the last place to the first, by step.

    It is the factor per place, from places of equal shape, to the power of the number of such
    places. If no three places share a shape, it is the ratio of the norms at the first and last
    place, which is 1 at He initialization for any widths (Hanin 2018). This ratio is divided and
    multiplied by the square root of the ratio of sizes: averaging alone can change it that much.

    Args:
        norms: [steps, places], from input to output; those that are not above 0 are left out.
        stage: number of the stage, [places]; places of one stage have tensors of one shape.
        sizes: elements per sample at each place, [places]; None if not known.

    Returns: the smallest and the largest factor that the shapes allow, each of shape [steps].
    """
    norms = np.asarray(norms, dtype=float)
    logs = np.log(np.where(np.isfinite(norms) & (norms > 0), norms, np.nan))
    slopes = log_factors(logs, np.arange(logs.shape[1], dtype=float), stage)
    _, group, members = np.unique(stage, return_inverse=True, return_counts=True)
    total = slopes * float((members[group] >= MIN_LAYERS).sum())
    slack = np.zeros_like(total)
    if np.isnan(total).all() and sizes is not None:
        total = logs[:, 0] - logs[:, -1]
        slack += abs(np.log(sizes[0] / sizes[-1])) / 2
    with np.errstate(over="ignore"):
        return np.exp(total - slack), np.exp(total + slack)
