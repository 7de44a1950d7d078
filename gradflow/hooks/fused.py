"""All statistics of a tensor from one read of it, without reading a value back from the device.

A tensor x [N, C, S] is reduced where it lies to `Moments`: per channel the sum, the sum of squares
and the sum of squared deviations from the channel's mean; in all the largest magnitude, the count
of zeros and of non-finite values, and, where wanted, a histogram of magnitudes. What
`gradflow.runs.schema` names follows from these by arithmetic on C numbers, done later for many
tensors at once by `finish`.

In main memory the loops of `gradflow.hooks.compiled` do it in one read; elsewhere, and without
numba, torch does it in a few. All sums run in float64 (float32 on mps, which has none), and
deviations are taken about a value of the channel's own, so that a variance is right to about 1e-12
of itself also where the mean is far larger. Squares of float64 values below 1e-154 are lost.

Axis letters: N batch, C channel (axis 1 or the last), S everything else, A everything before C.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks import histograms, native

# Elements that the torch fallback turns into float64 at a time.
_CHUNK = {"cpu": 1 << 16}
_LARGE_CHUNK = 1 << 24


@dataclass(frozen=True)
class Moments:
    """What one tensor, or several taken as one batch, was reduced to; lies on its device.

    Fields:
        channel_sums, channel_squares: [C] sum and sum of squares; C is 1 without a channel axis.
        channel_deviations: [C] sum of squared deviations from the channel's mean.
        extremes: [3] largest magnitude, count of zeros, count of non-finite values.
        elements: M.
        batch_size: N.
        has_channels: whether the tensor had a channel axis.
        magnitudes: counts of magnitudes, as `histograms.count` gives them, where wanted.
    """

    channel_sums: Tensor
    channel_squares: Tensor
    channel_deviations: Tensor
    extremes: Tensor
    elements: int
    batch_size: int
    has_channels: bool
    magnitudes: Tensor | None = None

    def join(self, other: "Moments") -> "Moments":
        """The moments of both tensors taken as one batch, as under gradient accumulation."""
        largest = torch.maximum(self.extremes[:1], other.extremes[:1])
        channels = self.channel_sums.numel()
        mine, theirs = self.elements / channels, other.elements / channels
        # Chan et al. 1979: what the difference of the two means adds to the deviations.
        apart = other.channel_sums / theirs - self.channel_sums / mine
        between = apart.square() * (mine * theirs / (mine + theirs))
        magnitudes = None
        if self.magnitudes is not None and other.magnitudes is not None:
            magnitudes = self.magnitudes + other.magnitudes
        return Moments(
            self.channel_sums + other.channel_sums,
            self.channel_squares + other.channel_squares,
            self.channel_deviations + other.channel_deviations + between,
            torch.cat([largest, self.extremes[1:] + other.extremes[1:]]),
            self.elements + other.elements,
            self.batch_size + other.batch_size,
            self.has_channels,
            magnitudes,
        )


@torch.no_grad()
def moments(x: Tensor, channel_axis: int | None, *, histogram: bool = False) -> Moments:
    """Reduce x to its moments; `channel_axis` is None for a tensor without channels.

    `histogram` asks for the counts of magnitudes as well.

    Raises `TypeError` for a complex, integer or empty tensor.
    """
    if not x.is_floating_point() or x.numel() == 0:
        raise TypeError(
            f"a non-empty real floating tensor is needed, got {x.dtype} {list(x.shape)}"
        )
    x = x.detach()
    if x.dim() == 0:
        channel_axis = None
    found = native.reduce(x, channel_axis, exponents=histogram)
    if found is None:
        channels, extremes = _channels(x, channel_axis), _extremes(x)
        magnitudes = histograms.count(x) if histogram else None
    else:
        nonfinite = 0 if math.isfinite(found.largest) else int((~torch.isfinite(x)).sum())
        channels = torch.from_numpy(found.channels)
        extremes = torch.tensor([found.largest, found.zeros, nonfinite], dtype=torch.float64)
        magnitudes = None
        if found.exponents is not None:
            nans = int(x.isnan().sum()) if nonfinite else 0
            magnitudes = histograms.from_exponents(found.exponents, found.zeros, nans)
    return Moments(
        *channels,
        extremes,
        x.numel(),
        x.shape[0] if x.dim() else 1,
        channel_axis is not None,
        magnitudes,
    )


@torch.no_grad()
def safe_norm(x: Tensor) -> Tensor:
    """The L2 norm of x, a 0-d tensor, also where squares of its elements would underflow."""
    square = native.square_sum(x.detach())
    if square is not None:
        return torch.tensor(math.sqrt(square), dtype=torch.float64)
    norm: Tensor = torch.linalg.vector_norm(x, dtype=_wide(x))
    return norm


def _wide(x: Tensor) -> torch.dtype:
    """The dtype to sum in."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _channels(x: Tensor, channel_axis: int | None) -> Tensor:
    """Sums, sums of squares, and of squared deviations, by channel: [3, C]."""
    wide = _wide(x)
    if channel_axis is None:
        runs = x.reshape(-1, 1, 1)
    else:
        axis = channel_axis % x.dim()
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        runs = x.reshape(math.prod(before), x.shape[axis], math.prod(after))
    count = runs.shape[0] * runs.shape[2]
    # Any element of a channel is near enough to its mean: (x0 - mean)^2 <= n variance.
    shift = runs[0, :, :1].to(wide)
    shift = torch.where(torch.isfinite(shift), shift, 0.0)
    total = square = torch.zeros((), dtype=wide, device=x.device)
    chunk = _CHUNK.get(x.device.type, _LARGE_CHUNK)
    for part in runs.split(max(1, chunk // math.prod(runs.shape[1:]))):
        difference = part.to(wide) - shift
        total = total + difference.sum((0, 2))
        square = square + torch.linalg.vector_norm(difference, dim=(0, 2)).square()
    deviations = (square - total.square() / count).clamp(min=0)
    sums = count * shift[:, 0] + total
    # Where the sum is not finite, its square would make an infinite norm a nan.
    squares = torch.where(torch.isfinite(square), deviations + sums.square() / count, square)
    return torch.stack([sums, squares, deviations])


def _extremes(x: Tensor) -> Tensor:
    """Largest magnitude, count of zeros, count of non-finite values: [3]."""
    smallest, greatest = torch.aminmax(x)
    largest = torch.maximum(-smallest, greatest)
    zeros = x.numel() - torch.count_nonzero(x)
    if x.device.type == "cpu" and math.isfinite(float(largest)):
        nonfinite = torch.zeros((), dtype=torch.float64)
    else:
        nonfinite = (~torch.isfinite(x)).sum()
    return torch.stack([largest.to(_wide(x)), zeros.to(_wide(x)), nonfinite.to(_wide(x))])


def finish(batch: list[Moments]) -> dict[str, np.ndarray]:
    """The statistics of each of T tensors: arrays [T] by name, as in `runs.schema`.

    The only place where values come off the device. The channel statistics of a tensor without
    channels are nan in the arrays, to be stored as missing.
    """
    if not batch:
        raise ValueError("no moments to finish")
    # Two transfers in all, however many tensors there are.
    channels = torch.stack(
        [
            torch.cat([entry.channel_sums for entry in batch]),
            torch.cat([entry.channel_squares for entry in batch]),
            torch.cat([entry.channel_deviations for entry in batch]),
        ]
    )
    sums, squares, deviations = channels.cpu().numpy().astype(np.float64)
    extremes = torch.stack([entry.extremes for entry in batch]).cpu().numpy().astype(np.float64)
    counts = np.array([entry.channel_sums.numel() for entry in batch])
    elements = np.array([entry.elements for entry in batch], dtype=np.float64)
    with_channels = np.array([entry.has_channels for entry in batch])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # Infinities and nans are wanted in the result, not warnings about them.
    with np.errstate(invalid="ignore", over="ignore"):
        return _statistics(
            (sums, squares, deviations), extremes, counts, elements, with_channels, starts
        )


def _statistics(
    channels: tuple[np.ndarray, np.ndarray, np.ndarray],
    extremes: np.ndarray,
    counts: np.ndarray,
    elements: np.ndarray,
    with_channels: np.ndarray,
    starts: np.ndarray,
) -> dict[str, np.ndarray]:
    sums, squares, deviations = channels
    per_channel = np.repeat(elements / counts, counts)
    means = sums / per_channel
    variances = deviations / per_channel
    total_squares = np.add.reduceat(squares, starts)
    mean = np.add.reduceat(sums, starts) / elements
    squared_mean = np.add.reduceat(means**2, starts) / counts
    variance = np.add.reduceat(variances, starts) / counts
    # Total variance: within channels, and of the channel means about the common mean.
    between = np.add.reduceat((means - np.repeat(mean, counts)) ** 2, starts) / counts
    dead = np.add.reduceat((squares == 0).astype(np.int64), starts)
    return {
        "mean": mean,
        "std": np.sqrt(variance + between),
        "rms": np.sqrt(total_squares / elements),
        "norm": np.sqrt(total_squares),
        "abs_max": extremes[:, 0],
        "zero_fraction": extremes[:, 1] / elements,
        "nonfinite": extremes[:, 2].astype(np.int64),
        "dead_channels": np.where(with_channels, dead, np.nan),
        "channel_squared_mean": np.where(with_channels, squared_mean, np.nan),
        "channel_variance": np.where(with_channels, variance, np.nan),
    }
