"""Reduces many tensors at a time, each to the same numbers as if it were reduced alone.

Small tensors on the CPU take one compiled call for all of a dtype; large ones are divided among
threads one by one, as `cpu.reduce` does. On CUDA one launch reduces up to 32 tensors; other devices
reduce one after the other.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu, histograms
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.fused import Moments, moments_if_any

_ON_CPU = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
# Elements, channels, run and pieces, as `compiled` says; then batch size, and whether there are
# channels, as `Moments` says.
_Geometry = tuple[tuple[int, int, int, int], int, bool]


class TensorToReduce(NamedTuple):
    """A tensor, its channel axis, and whether its magnitudes are to be counted."""

    tensor: Tensor
    axis: int | None
    histogram: bool = False

    @property
    def is_small(self) -> bool:
        """Whether one compiled call reduces it together with others."""
        return is_small(self.tensor)


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
    others: list[int] = []
    for place, item in enumerate(items):
        if item.is_small:
            key = item.tensor.dtype, item.histogram
            if key in together:
                together[key].append(place)
            else:
                together[key] = [place]
        else:
            others.append(place)
    for place, seen in zip(others, _reduce_elsewhere([items[i] for i in others]), strict=True):
        found[place] = seen
    for (dtype, histogram), places in together.items():
        if len(places) == len(items):
            return list(_reduce_on_cpu(items, dtype, histogram))
        group = _reduce_on_cpu([items[place] for place in places], dtype, histogram)
        for place, moments in zip(places, group, strict=True):
            found[place] = moments
    return found


def _reduce_elsewhere(items: Sequence[Any]) -> Sequence[Moments | None]:
    """Return the moments of tensors that are large, or on another device than the CPU."""
    if len(items) == 1:
        (one,) = items
        return [moments_if_any(one.tensor, one.axis, histogram=one.histogram)]
    return on_device.reduce_on_device([(one.tensor, one.axis, one.histogram) for one in items])


def multiply_group(items: Sequence[Any]) -> list[Tensor | None]:
    """Return the `cpu.junction_products` [7] of each item: gradients that are all small.

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
        and tensor.dtype in _ON_CPU
        and 0 < tensor.numel() < cpu.MIN_SHARED_ELEMENTS
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_neg()
        and cpu.loops_module() is not None
    )


def _are_alike(first: Tensor, second: Tensor, third: Tensor) -> bool:
    dtype, shape = first.dtype, first.shape
    return (
        second.dtype is dtype
        and third.dtype is dtype
        and second.shape == shape
        and third.shape == shape
        and first.is_contiguous()
        and second.is_contiguous()
        and third.is_contiguous()
    )


def _reduce_on_cpu(items: Sequence[Any], dtype: torch.dtype, histogram: bool) -> list[Moments]:
    """Return the moments of small tensors of one dtype."""
    if dtype not in cpu.LAYOUTS:
        items = [TensorToReduce(one.tensor.detach().float(), one.axis) for one in items]
        dtype = torch.float32
    rows: list[int] = []
    geometries: list[_Geometry] = []
    kept: list[Tensor] = []  # until their memory has been read
    for item in items:
        tensor, axis = item.tensor, item.axis
        if tensor.is_contiguous():
            geometry = _geometry(tensor.shape, axis)
            rows.append(tensor.data_ptr())
        else:
            ordered, place = cpu.in_memory_order(tensor.detach(), axis)
            geometry = (_geometry(ordered.shape, place)[0], tensor.shape[0], axis is not None)
            rows.append(ordered.data_ptr())
            kept.append(ordered)
        rows += geometry[0]
        geometries.append(geometry)
    loops = cpu.group_loops(dtype)
    table = np.array(rows, np.int64).reshape(-1, 5)
    results = np.empty(3 * int(table[:, 2].sum()) + 6 * len(items))
    counts = np.zeros((len(items), 4, loops.exponents if histogram else 0), np.int64)
    loops.reduce(table, loops.layout, counts, results)
    found, end = [], 0
    for (elements, channels, _, _), batch, has_channels in geometries:
        begin, end = end, end + 3 * channels + 6
        found.append(Moments(results[begin:end], channels, elements, batch, has_channels))
    if histogram:
        for item, exponents, seen in zip(items, counts, found, strict=True):
            seen.magnitudes = _magnitudes(item.tensor, seen.values, exponents)
    return found


def _magnitudes(tensor: Tensor, values: Any, exponents: np.ndarray) -> Tensor:
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
    return (elements, channels, run, pieces), batch, axis is not None and bool(shape)
