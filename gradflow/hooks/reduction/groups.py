"""Reduces many tensors at a time, each to the same numbers as if it were reduced alone.

Small tensors on the CPU take one compiled call for all of a dtype; large ones are divided among
threads one by one, as `cpu.reduce` does. Other devices reduce one after the other.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu, histograms
from gradflow.hooks.reduction.fused import Moments, moments_if_any

_ON_CPU = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
# (elements, channels, run, pieces, batch size, has channels), as `compiled` and `Moments` say
_Geometry = tuple[int, int, int, int, int, bool]


class TensorToReduce(NamedTuple):
    """A tensor, its channel axis, and whether its magnitudes are to be counted."""

    tensor: Tensor
    axis: int | None
    histogram: bool = False


class GradientsToMultiply(NamedTuple):
    """The gradients dL/dx, s and b at one residual addition; see `residual.junctions`."""

    whole: Tensor
    skip: Tensor
    branch: Tensor


def reduce_group(items: Sequence[Any]) -> list[Moments | None]:
    """Return the `Moments` of each item, which has the fields of a `TensorToReduce`.

    None for a tensor whose class or dtype has no moments.
    """
    found: list[Moments | None] = [None] * len(items)
    together: dict[tuple[torch.dtype, bool], list[int]] = {}
    for place, item in enumerate(items):
        tensor = item.tensor
        if is_small(tensor):
            together.setdefault((tensor.dtype, item.histogram), []).append(place)
        else:
            found[place] = moments_if_any(tensor, item.axis, histogram=item.histogram)
    for (dtype, histogram), places in together.items():
        group = [(items[place].tensor, items[place].axis) for place in places]
        for place, seen in zip(places, _reduce_on_cpu(group, dtype, histogram), strict=True):
            found[place] = seen
    return found


def multiply_group(items: Sequence[Any]) -> list[Tensor | None]:
    """Return the `cpu.junction_products` [7] of each item, with the fields of its gradients.

    None for gradients that the compiled loops do not take.
    """
    found: list[Tensor | None] = [None] * len(items)
    together: dict[torch.dtype, list[int]] = {}
    rows: dict[torch.dtype, list[int]] = {}
    for place, item in enumerate(items):
        whole, skip, branch = item.whole, item.skip, item.branch
        dtype = whole.dtype
        if dtype in cpu.LAYOUTS and _are_alike(whole, skip, branch):
            together.setdefault(dtype, []).append(place)
            rows.setdefault(dtype, []).extend(
                (whole.numel(), whole.data_ptr(), skip.data_ptr(), branch.data_ptr())
            )
    for dtype, places in together.items():
        products = torch.empty((len(places), 7), dtype=torch.float64)
        table = np.array(rows[dtype], np.int64).reshape(-1, 4)
        cpu.group_loops(dtype).multiply(table, products.numpy())
        for place, one in zip(places, products.unbind(), strict=True):
            found[place] = one
    return found


def is_small(tensor: Tensor) -> bool:
    """Whether one compiled call reduces `tensor` together with others."""
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.dtype in _ON_CPU
        and 0 < tensor.numel() < cpu.MIN_SHARED_ELEMENTS
        and not tensor.is_neg()
        and cpu.loops_module() is not None
    )


def _are_alike(*gradients: Tensor) -> bool:
    first = gradients[0]
    return all(
        is_small(one)
        and one.dtype is first.dtype
        and one.shape == first.shape
        and one.is_contiguous()
        for one in gradients
    )


@torch.no_grad()
def _reduce_on_cpu(
    group: Sequence[tuple[Tensor, int | None]], dtype: torch.dtype, histogram: bool
) -> list[Moments]:
    """Return the moments of small tensors of one dtype."""
    if dtype not in cpu.LAYOUTS:
        group, dtype = [(tensor.float(), axis) for tensor, axis in group], torch.float32
    rows: list[int] = []
    geometries: list[_Geometry] = []
    kept: list[Tensor] = []  # until their memory has been read
    for tensor, axis in group:
        if tensor.is_contiguous():
            geometry = _geometry(tensor.shape, axis)
        else:
            ordered, place = cpu.in_memory_order(tensor, axis)
            geometry = (*_geometry(ordered.shape, place)[:4], tensor.shape[0], axis is not None)
            tensor = ordered  # noqa: PLW2901 - the same elements in the order of the memory
            kept.append(ordered)
        geometries.append(geometry)
        rows.append(tensor.data_ptr())
        rows += geometry[:4]
    loops = cpu.group_loops(dtype)
    results = np.empty(sum(3 * one[1] + 6 for one in geometries))
    counts = np.zeros((len(group), 4, loops.exponents if histogram else 0), np.int64)
    loops.reduce(np.array(rows, np.int64).reshape(-1, 5), loops.layout, counts, results)
    found, end = [], 0
    for place, (elements, channels, _, _, batch, has_channels) in enumerate(geometries):
        begin, end = end, end + 3 * channels + 6
        values = results[begin:end]
        magnitudes = _magnitudes(group[place][0], values, counts[place]) if histogram else None
        found.append(Moments(values, channels, elements, batch, has_channels, magnitudes))
    return found


def _magnitudes(tensor: Tensor, values: np.ndarray, exponents: np.ndarray) -> Tensor:
    nans = int(tensor.isnan().sum()) if values[-1] else 0
    return histograms.from_exponents(exponents.sum(0), int(values[-2]), nans)


@lru_cache(maxsize=4096)
def _geometry(shape: torch.Size, axis: int | None) -> _Geometry:
    """Return how the loops walk through a contiguous tensor."""
    elements, batch = math.prod(shape), shape[0] if shape else 1
    channels, run = 1, cpu.BLOCK
    if axis is not None and shape:
        channels = shape[axis]
        run = cpu.BLOCK if channels == 1 else math.prod(shape[axis + 1 :])
    pieces = -(-elements // (channels if run == 1 else run))
    return elements, channels, run, pieces, batch, axis is not None and bool(shape)
