"""Reduces a tensor to the values of `Moments` with torch alone, on any device."""

import math

import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu

# Elements that are converted to float64 at a time, on the CPU and on other devices.
_CHUNK = 1 << 16
_DEVICE_CHUNK = 1 << 22
# A million times the smallest normal number of float32.
_LEAST_FOURTH_POWER = 1e-32


def reduce(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return the values of `Moments` from several reads, on any device."""
    return torch.cat([_channels(x, channel_axis).flatten(), _powers(x), _extremes(x)])


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype for sums."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _channels(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return sums, sums of squares, and sums of squared deviations, by channel: [3, C]."""
    wide = sum_dtype(x)
    if channel_axis is None:
        runs = x.reshape(-1, 1, 1)
    else:
        axis = channel_axis % x.dim()
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        runs = x.reshape(math.prod(before), x.shape[axis], math.prod(after))
    count = runs.shape[0] * runs.shape[2]
    # Any element of a channel is close enough to the mean: (x0 - mean)^2 <= n variance.
    shift = runs[0, :, :1].to(wide)
    shift = torch.where(torch.isfinite(shift), shift, 0.0)
    total = square = torch.zeros((), dtype=wide, device=x.device)
    if x.is_cuda:
        # CUDA sums in float64 without a copy of x, which is faster than subtracting the shift. The
        # relative error of the variance is then 1e-16 (1 + mean^2 / variance).
        shift = torch.zeros_like(shift)
        total = runs.sum((0, 2), dtype=wide)
        square = torch.linalg.vector_norm(runs, dim=(0, 2), dtype=wide).square()
    else:
        for part in runs.split(max(1, _CHUNK // math.prod(runs.shape[1:]))):
            difference = part.to(wide) - shift
            total = total + difference.sum((0, 2))
            square = square + difference.square_().sum((0, 2))
    deviations = (square - total.square() / count).clamp(min=0)
    sums = count * shift[:, 0] + total
    # If the sum is not finite, its square would turn an infinite norm into nan.
    squares = torch.where(torch.isfinite(square), deviations + sums.square() / count, square)
    return torch.stack([sums, squares, deviations])


def _powers(x: Tensor) -> Tensor:
    """Return an element x0, and the sums of (x - x0)^3 and (x - x0)^4: [3]."""
    wide = sum_dtype(x)
    flat = cpu.in_memory_order(x, None)[0].reshape(-1)
    origin = flat[0].to(wide)
    origin = torch.where(torch.isfinite(origin), origin, 0.0)
    cubes = fourths = torch.zeros((), dtype=wide, device=x.device)
    for part in flat.split(_CHUNK if x.device.type == "cpu" else _DEVICE_CHUNK):
        difference = part.to(wide) - origin
        square = difference.square()
        cubes = cubes + torch.dot(square, difference)
        fourths = fourths + torch.dot(square, square)
    if wide is torch.float32:
        # If float32 does not hold all fourth powers: no kurtosis rather than a wrong one.
        lost = (fourths > 0) & (fourths < x.numel() * _LEAST_FOURTH_POWER)
        fourths = torch.where(lost, math.nan, fourths)
    return torch.stack([origin, cubes, fourths])


def _extremes(x: Tensor) -> Tensor:
    """Return the largest magnitude, the count of zeros and of non-finite values: [3]."""
    smallest, greatest = torch.aminmax(x)
    largest = torch.maximum(-smallest, greatest)
    zeros = x.numel() - torch.count_nonzero(x)
    if x.device.type == "cpu" and math.isfinite(float(largest)):
        nonfinite = torch.zeros((), dtype=torch.float64)
    else:
        nonfinite = (~torch.isfinite(x)).sum()
    return torch.stack(
        [largest.to(sum_dtype(x)), zeros.to(sum_dtype(x)), nonfinite.to(sum_dtype(x))]
    )
