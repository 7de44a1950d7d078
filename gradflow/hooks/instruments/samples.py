"""Parts of a tensor, small and of fixed cost, and their statistics, for many steps at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.processes.tensors import local_part

# As many elements of a tensor are kept until the next transfer, and of so many samples at least.
MOST_ELEMENTS = 1 << 16
_FEWEST_SAMPLES = 8


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
    rows = torch.stack(
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
    columns = rows.cpu().double().numpy()
    return [dict(zip(STATISTICS, row.tolist(), strict=True)) for row in np.transpose(columns)]


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
