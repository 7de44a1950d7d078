"""The statistics of tensors from their moments, by arithmetic on C numbers, for many at once.

Axis letters: C channel, T tensor, M elements of a tensor.
"""

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction.moments import Moments

# How many numbers of a tensor its statistics follow from: see `sums_in`.
SUMS = 12


def to_statistics(batch: list[Moments]) -> dict[str, np.ndarray]:
    """Return the statistics of T tensors: arrays [T] by name, as in `runs.format.schema`.

    Only this function transfers values from the device. The channel statistics of a tensor without
    channels, and the kurtosis of equal elements, are nan here, and stored as missing.
    """
    if not batch:
        raise ValueError("no moments given")
    flat = on_host([entry.values for entry in batch])
    counts = np.array([entry.channels for entry in batch])
    elements = np.array([entry.elements for entry in batch], np.float64)
    with_channels = np.array([entry.has_channels for entry in batch])
    found = sums_in(flat, np.cumsum(3 * counts + 6), counts, elements)
    return statistics_from(found, counts, elements, with_channels)


def on_host(values: list[Tensor | np.ndarray]) -> np.ndarray:
    """Return all values in float64, in order of the tensors, with a single transfer."""
    on_device = [entry for entry in values if isinstance(entry, Tensor)]
    if not on_device:
        return np.concatenate(values)
    lengths = [entry.numel() for entry in on_device]
    moved = torch.cat(on_device).cpu().numpy().astype(np.float64)
    parts = iter(np.split(moved, np.cumsum(lengths)[:-1]))
    return np.concatenate([next(parts) if isinstance(v, Tensor) else v for v in values])


def sums_in(
    flat: np.ndarray, ends: np.ndarray, counts: np.ndarray, elements: np.ndarray
) -> np.ndarray:
    """Return the sums of tensors whose values are in one array `flat`: [12, T].

    `ends` [T] says where the values of each end there, `counts` the channels; `elements` are the
    numbers of elements, in float64. Of a tensor with C channels of n = M / C elements they are: the
    sum; the sum of squares; the sum over channels of their squared means, of their variances, and
    of the squared differences between their means and that of the whole; the number of channels
    without a square; then the last six values of its `Moments`.
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # The place of each channel's sum in `flat`, for one tensor after the other.
    places = np.arange(counts.sum()) + np.repeat(ends - 3 * counts - 6 - starts, counts)
    offsets = np.repeat(counts, counts)
    sums, squares, deviations = (flat[places + kind * offsets] for kind in range(3))
    by_channel = np.repeat(elements / counts, counts)
    found = np.empty((SUMS, len(ends)))
    # Infinities and nans belong in the result, without warnings.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        means = sums / by_channel
        found[0] = np.add.reduceat(sums, starts)
        found[1] = np.add.reduceat(squares, starts)
        found[2] = np.add.reduceat(means**2, starts)
        found[3] = np.add.reduceat(deviations / by_channel, starts)
        apart = means - np.repeat(found[0] / elements, counts)
        found[4] = np.add.reduceat(apart**2, starts)
        found[5] = np.add.reduceat((squares == 0).astype(np.int64), starts)
    found[6:] = flat[(ends - 6) + np.arange(6)[:, None]]
    return found


def statistics_from(
    sums: np.ndarray, counts: np.ndarray, elements: np.ndarray, with_channels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the statistics of T tensors from their `sums_in`; the others are as in `Moments`.

    `elements` are in float64.
    """
    total, squares, squared_means, variances, between_means, dead = sums[:6]
    origin, cubes, fourths, largest, zeros, nonfinite = sums[6:]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean, variance = total / elements, variances / counts
        # Total variance = mean variance within channels + variance of the channel means.
        total_variance = variance + between_means / counts
        kurtosis = _kurtosis(mean - origin, total_variance, cubes / elements, fourths / elements)
        return {
            "mean": mean,
            "std": np.sqrt(total_variance),
            "rms": np.sqrt(squares / elements),
            "norm": np.sqrt(squares),
            "kurtosis": kurtosis,
            "abs_max": largest,
            "zero_fraction": zeros / elements,
            "nonfinite": nonfinite.astype(np.int64),
            "dead_channels": np.where(with_channels, dead, np.nan),
            "channel_squared_mean": np.where(with_channels, squared_means / counts, np.nan),
            "channel_variance": np.where(with_channels, variance, np.nan),
        }


def _kurtosis(
    distance: np.ndarray, variance: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> np.ndarray:
    """Return the kurtosis from moments about an element x0; nan if all elements equal x0.

    `distance` is mean - x0, `third` and `fourth` are the means of (x - x0)^3 and (x - x0)^4.
    """
    about_mean = fourth - 4 * distance * third + 3 * distance**2 * (2 * variance + distance**2)
    # By Jensen's inequality at least 1; rounding may take it a little below.
    kurtosis = np.maximum(about_mean / variance**2, 1.0)
    return np.where((fourth == 0) | (variance == 0), np.nan, kurtosis)
