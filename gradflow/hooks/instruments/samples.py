"""Parts of a tensor, small and of fixed cost, and their statistics, for many steps at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.processes.tensors import local_part
from gradflow.hooks.reduction import cpu

# As many elements of a tensor are kept until the next transfer, and of so many samples at least.
MOST_ELEMENTS = 1 << 16
_FEWEST_SAMPLES = 8
# Of fewer, all samples of a transfer together take torch less than a loop takes for each.
_FEWEST_FOR_LOOPS = 1 << 11
# The first elements of a sample, which most often tell that not all are alike or whole numbers.
_FEW = 16


@dataclass(frozen=True)
class Sample:
    """A part of a tensor: of samples and places that lie evenly.

    Fields:
        values: the part, a copy on the device.
        whole_axes: the axes of which every element is there.
    """

    values: Tensor
    whole_axes: frozenset[int]


@torch.no_grad()
def sample_of(x: Tensor) -> Sample:
    """Return a copy of at most about 65,536 elements of x [N, ...].

    Axes are thinned in this order: places, such as the height and width of [N, C, H, W] or the T of
    [N, T, C]; samples, down to eight; channels; and the rest.
    """
    part = local_part(x.detach())
    part = torch.view_as_real(part) if part.is_complex() else part
    if part.numel() <= MOST_ELEMENTS:
        return Sample(part.clone(), frozenset(range(part.dim())))
    thinned = set()
    for axis, fewest in _order(part.dim()):
        size = part.shape[axis]
        if part.numel() <= MOST_ELEMENTS:
            break
        wanted = max(fewest, size * MOST_ELEMENTS // part.numel())
        stride = -(-size // max(wanted, 1))
        if stride > 1:
            part = part[(slice(None),) * axis + (slice(None, None, stride),)]
            thinned.add(axis)
    return Sample(part.clone(), frozenset(set(range(part.dim())) - thinned))


def _order(axes: int) -> list[tuple[int, int]]:
    """The axes in the order in which they are thinned, and how much of each is left at least."""
    places = [1] if axes == 3 else list(range(2, axes))
    channels = [axis for axis in range(1, axes) if axis not in places]
    thinned = [(axis, 1) for axis in places]
    thinned += [(0, _FEWEST_SAMPLES)] if axes else []
    return [*thinned, *((axis, 1) for axis in channels), *([(0, 1)] if axes else [])]


STATISTICS = (
    "mean",
    "std",
    "min",
    "max",
    "zero_fraction",
    "nonfinite",
    "whole",
    "repeated",
    "batch_variance",
    "distance_from_probabilities",
)


@torch.no_grad()
def statistics_of(samples: Sequence[Sample], *, of_outputs: bool) -> list[dict[str, float]]:
    """Return the statistics of samples of one shape, type and device, by name; nan where there are
    none. Waits for the device once.
    """
    rows = _by_loops(samples, of_outputs=of_outputs)
    if rows is None:
        rows = _by_torch(samples, of_outputs=of_outputs).cpu().double().numpy()
    return [dict(zip(STATISTICS, row.tolist(), strict=True)) for row in np.transpose(rows)]


def _by_torch(samples: Sequence[Sample], *, of_outputs: bool) -> Tensor:
    """The statistics, one row for each of `STATISTICS`, one column for each sample."""
    stacked = torch.stack([one.values for one in samples])
    x = stacked.to(_working_type(stacked))
    flat = x.reshape(len(x), -1)
    variance, mean = torch.var_mean(flat, 1, correction=0)
    low, high = torch.aminmax(flat, dim=1)
    nothing = torch.full_like(mean, torch.nan)
    repeated, over_batch = nothing, nothing
    if x.dim() > 1 and x.shape[1] > 1:
        by_sample = x.reshape(*x.shape[:2], -1)
        repeated = (by_sample[:, 1:] == by_sample[:, :1]).all(2).to(x.dtype).mean(1)
        over_batch = torch.var(by_sample, 1, correction=0).mean(1)
    return torch.stack(
        [
            mean,
            variance.sqrt(),
            low,
            high,
            (flat == 0).to(x.dtype).mean(1),
            (~torch.isfinite(flat)).sum(1).to(x.dtype),
            (flat == flat.round()).all(1).to(x.dtype),
            repeated,
            over_batch,
            _distance_from_probabilities(x, low, samples) if of_outputs else nothing,
        ]
    )


class _Read(NamedTuple):
    """What one read of a finite x [N, P] gives: the statistics of these names, but for the last.

    Fields:
        variance: of all elements.
        over_batch: [P] the variances over N.
    """

    mean: float
    variance: float
    low: float
    high: float
    zero_fraction: float
    whole: bool
    repeated: float
    over_batch: np.ndarray


def _by_loops(samples: Sequence[Sample], *, of_outputs: bool) -> np.ndarray | None:
    """What `_by_torch` returns, with the compiled loops; None if they do not serve, if the samples
    are small, or if values are not finite.

    torch takes variances on the CPU element by element, with a division for each. Both compute in
    float64 and round to float32, so the numbers are the same, but for a mean that lies halfway
    between two of float32.
    """
    first = samples[0].values
    if first.device.type != "cpu" or _working_type(first) != torch.float32:
        return None
    if first.numel() < _FEWEST_FOR_LOOPS:
        return None
    read: list[_Read] = []
    for one in samples:
        found = _read(one.values.float())
        if found is None:
            return None
        read.append(found)
    nothing = torch.full([len(read)], torch.nan)
    mean, variance, *others = torch.tensor([one[:-1] for one in read], dtype=torch.float32).T
    low, high, zero_fraction, whole, repeated = others
    over_batch, distances = nothing, nothing.clone()
    if first.dim() and len(first) > 1:
        over_batch = torch.from_numpy(np.stack([one.over_batch for one in read])).mean(1)
    not_negative = torch.nonzero(low >= 0).flatten() if of_outputs else ()
    if len(not_negative):
        chosen = [samples[place] for place in not_negative]
        x = torch.stack([one.values for one in chosen]).float()
        distances[not_negative] = _distance_from_probabilities(x, low[not_negative], chosen)
    nonfinite = torch.zeros_like(mean)
    statistics = [mean, variance.sqrt(), low, high, zero_fraction, nonfinite, whole, repeated]
    return torch.stack([*statistics, over_batch, distances]).double().numpy()


def _read(x: Tensor) -> _Read | None:
    """What is known of x [N, ...]; None if it is not finite, or if the loops do not serve."""
    # Places in memory order: a transposed tensor need not be copied.
    order = sorted(range(1, x.dim()), key=x.stride, reverse=True)
    ordered = x.permute(0, *order) if x.dim() else x
    by_sample = ordered.reshape(len(x) if x.dim() else 1, -1)
    found = cpu.reduce(by_sample, 1, exponents=False)
    if found is None or found[0][-1]:
        return None
    values, (samples, places) = found[0], by_sample.shape
    means, variances = values[:places] / samples, values[2 * places : 3 * places] / samples
    mean = means.mean()
    low, high = torch.aminmax(by_sample)
    with np.errstate(over="ignore"):  # where float32 does not hold the square of a value
        over_batch = variances.astype(np.float32).reshape(ordered.shape[1:])
    return _Read(
        mean,
        variances.mean() + np.square(means - mean).mean(),
        low.item(),
        high.item(),
        values[-2] / x.numel(),
        _all_whole(by_sample),
        _repeated(by_sample) if samples > 1 else np.nan,
        over_batch.transpose(np.argsort(order)).reshape(-1),
    )


def _all_whole(x: Tensor) -> bool:
    """Whether all elements of x [N, P] are whole numbers: most often the first ones tell."""
    return all(bool((part == part.round()).all()) for part in (x[:1, :_FEW], x))


def _repeated(x: Tensor) -> float:
    """The share of the other samples of x [N, P] that equal the first one."""
    if not (x[1:, :_FEW] == x[:1, :_FEW]).all(1).any():
        return 0.0
    return int((x[1:] == x[:1]).all(1).sum()) / (len(x) - 1)


def _working_type(x: Tensor) -> torch.dtype:
    """The type to compute in: float32 for shorter ones; float64, where there is one, for whole
    numbers, which float32 does not hold exactly beyond 2^24.
    """
    if x.dtype in (torch.float32, torch.float16, torch.bfloat16) or x.device.type == "mps":
        return torch.float32
    return torch.float64


def _distance_from_probabilities(x: Tensor, low: Tensor, samples: Sequence[Sample]) -> Tensor:
    """max |sum over classes - 1| of x [S, N, ...]; nan where x has negative or too few elements.

    Classes lie along axis 1 of a tensor, or the last one: whichever comes closer.
    """
    whole = frozenset.intersection(*(one.whole_axes for one in samples))
    axes = {axis for axis in (1, x.dim() - 2) if axis >= 1 and axis in whole}
    axes = {axis for axis in axes if x.shape[axis + 1] > 1}
    if not axes or not samples[0].values.is_floating_point():
        return torch.full_like(low, torch.nan)
    distances = [(x.sum(axis + 1) - 1).abs().flatten(1).amax(1) for axis in axes]
    least = torch.stack(distances).amin(0)
    return torch.where(low >= 0, least, torch.nan)
