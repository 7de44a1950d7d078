"""Movement of validation accuracy between epochs, and how much re-estimation removes."""

from dataclasses import dataclass

import numpy as np

from analyses.reading.predictions import right_images
from analyses.reading.runs import seed_label
from analyses.statistics import Array
from analyses.statistics.bootstrap import RESAMPLES, image_weights
from analyses.wording.numbers import finite
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class RecalibrationSeries:
    """Which images one run classified correctly, with two kinds of batch-norm statistics.

    Fields:
        seed: seed of the run.
        epochs: the epochs that both series have.
        running, re_estimated: 1 if correct, with running and with re-estimated statistics; shape
            [epochs, images], the same images in both.
    """

    seed: str
    epochs: tuple[int, ...]
    running: Array
    re_estimated: Array


@dataclass(frozen=True)
class Movement:
    """Squared epoch-to-epoch movement of accuracy without sampling noise, summed over seeds.

    Fields:
        running, running_low, running_high: with running statistics, with its 95 % interval.
        re_estimated, re_estimated_low, re_estimated_high: with re-estimated statistics.
        removed, removed_low, removed_high: 1 - re_estimated / running; None if running is not
            above 0.
    """

    running: float
    running_low: float
    running_high: float
    re_estimated: float
    re_estimated_low: float
    re_estimated_high: float
    removed: float | None
    removed_low: float | None
    removed_high: float | None


def recalibration_series(run: Run) -> RecalibrationSeries | None:
    """Both series of `run` over their common epochs and images; None with fewer than two epochs."""
    if not (len(run.predictions) and len(run.recalibration)):
        return None
    running, fresh = right_images(run), right_images(run, "recalibration")
    epochs = running.index.intersection(fresh.index)
    images = running.columns.intersection(fresh.columns)
    if len(epochs) < 2 or not len(images):
        return None
    return RecalibrationSeries(
        seed_label(run),
        tuple(int(epoch) for epoch in epochs),
        running.loc[epochs, images].to_numpy(dtype=float),
        fresh.loc[epochs, images].to_numpy(dtype=float),
    )


def squared_movement(right: Array, weights: Array) -> tuple[Array, Array]:
    """Movement and its noise for several weightings of the images.

    M = sum over consecutive epochs of delta^2 - v, delta the change of accuracy and v the sampling
    variance (b + c)/n^2 - (b - c)^2/n^3 of a paired difference, b and c the discordant counts.

    Args:
        right: shape [epochs, images], 1 if an image is classified correctly.
        weights: shape [resamples, images]; each row adds up to the number of images.

    Returns: M and sum of v, each of shape [resamples].
    """
    images = right.shape[1]
    steps = np.diff(right, axis=0)
    change = weights @ steps.T / images
    variance = (weights @ np.abs(steps).T / images - change**2) / images
    noise: Array = variance.sum(axis=1)
    movement: Array = (change**2).sum(axis=1) - noise
    return movement, noise


def movement_and_removal(
    series: list[RecalibrationSeries], resamples: int = RESAMPLES, seed: int = 0
) -> Movement:
    """The movement in both series, and the share of it that re-estimation removes.

    Bootstrap over images, the same ones drawn for both series and all epochs. A resample adds
    sampling noise a second time; its expected amount is subtracted, so that resamples centre on
    the estimate.
    """
    values, draws = np.zeros(2), np.zeros((2, resamples))
    for index, both in enumerate(series):
        weights = image_weights(both.running.shape[1], resamples, seed + index)
        for row, right in enumerate((both.running, both.re_estimated)):
            once, noise = squared_movement(right, np.ones((1, right.shape[1])))
            drawn, _ = squared_movement(right, weights)
            values[row] += once[0]
            draws[row] += drawn - noise[0]
    intervals = [tuple(float(end) for end in np.quantile(row, [0.025, 0.975])) for row in draws]
    removed, low, high = None, None, None
    if values[0] > 0:
        removed = float(1 - values[1] / values[0])
        # A resample without movement gives no evidence of removal: it counts as the lowest share.
        ratios = np.full(resamples, -np.inf)
        np.divide(draws[1], draws[0], out=ratios, where=draws[0] > 0)
        ratios = np.where(draws[0] > 0, 1 - ratios, -np.inf)
        ends = np.quantile(ratios, [0.025, 0.975], method="inverted_cdf")
        low, high = finite(float(ends[0])), finite(float(ends[1]))
    return Movement(
        running=float(values[0]),
        running_low=intervals[0][0],
        running_high=intervals[0][1],
        re_estimated=float(values[1]),
        re_estimated_low=intervals[1][0],
        re_estimated_high=intervals[1][1],
        removed=removed,
        removed_low=low,
        removed_high=high,
    )
