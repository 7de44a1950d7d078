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
from gradflow.hooks.reduction.batches import BatchLayout, Geometry, Layouts, MomentBatch
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.fused import moments_if_any
from gradflow.hooks.reduction.moments import Moments

ON_CPU = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
_layouts = Layouts()


class TensorToReduce(NamedTuple):
    """A tensor, its channel axis, and whether its magnitudes are to be counted.

    `geometry` is that of a contiguous tensor, if it is known.
    """

    tensor: Tensor
    axis: int | None
    histogram: bool = False
    geometry: Geometry | None = None

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
    places: list[int] = []
    others: list[int] = []
    for place, item in enumerate(items):
        (places if item.is_small else others).append(place)
    for place, seen in zip(others, reduce_elsewhere([items[i] for i in others]), strict=True):
        found[place] = seen
    for group, batch in reduce_small([items[place] for place in places]):
        for at, index in enumerate(group):
            found[places[index]] = batch.moments(at)
    return found


def reduce_small(items: Sequence[Any]) -> list[tuple[Sequence[int], MomentBatch]]:
    """Return the moments of items that are all small: in batches, with the places of the items."""
    if not items:
        return []
    together: dict[tuple[torch.dtype, bool], list[int]] = {}
    first = items[0].tensor.dtype, items[0].histogram
    for place, item in enumerate(items):
        key = item.tensor.dtype, item.histogram
        if key != first or together:
            if not together:
                together[first] = list(range(place))
            together.setdefault(key, []).append(place)
    if not together:
        return [(range(len(items)), _reduce_on_cpu(items, *first))]
    return [
        (places, _reduce_on_cpu([items[place] for place in places], *key))
        for key, places in together.items()
    ]


def reduce_elsewhere(items: Sequence[Any]) -> Sequence[Moments | None]:
    """Return the moments of tensors that are large, or on another device than the CPU."""
    if len(items) == 1:
        (one,) = items
        return [moments_if_any(one.tensor, one.axis, histogram=one.histogram)]
    return on_device.reduce_on_device([(one.tensor, one.axis, one.histogram) for one in items])


def multiply_group(items: Sequence[Any]) -> list[Tensor | np.ndarray | None]:
    """Return the `gradient_products` [7] of each item, in main memory or on its device.

    None for gradients that neither the compiled loops nor the kernels take.
    """
    found: list[Tensor | np.ndarray | None] = [None] * len(items)
    together: dict[torch.dtype, list[int]] = {}
    rows: dict[torch.dtype, list[int]] = {}
    elsewhere: list[int] = []
    for place, item in enumerate(items):
        whole, skip, branch = item.whole, item.skip, item.branch
        dtype = whole.dtype
        if not whole.is_cpu or cpu.loops_module() is None:
            elsewhere.append(place)
        elif dtype in cpu.LAYOUTS and are_alike(whole, skip, branch):
            if dtype not in together:
                together[dtype], rows[dtype] = [], []
            together[dtype].append(place)
            rows[dtype] += (whole.numel(), whole.data_ptr(), skip.data_ptr(), branch.data_ptr())
    for dtype, places in together.items():
        products = np.empty((len(places), 7))
        table = np.array(rows[dtype], np.int64).reshape(-1, 4)
        cpu.group_loops(dtype).multiply(table, products)
        for place, one in zip(places, products, strict=True):
            found[place] = one
    if elsewhere:
        gradients = [(items[at].whole, items[at].skip, items[at].branch) for at in elsewhere]
        for place, seen in zip(elsewhere, on_device.multiply_on_device(gradients), strict=True):
            found[place] = seen
    return found


def layout_of(geometries: list[Geometry]) -> BatchLayout:
    """Return how the values of a group of small tensors follow each other."""
    return _layouts.of(geometries)


def is_small(tensor: Tensor) -> bool:
    """Whether one compiled call reduces `tensor` together with others."""
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and tensor.dtype in ON_CPU
        and 0 < tensor.numel() < cpu.MIN_SHARED_ELEMENTS
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_neg()
        and cpu.loops_module() is not None
    )


def are_alike(first: Tensor, second: Tensor, third: Tensor) -> bool:
    """Whether three tensors are contiguous and of one shape and dtype."""
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


def _reduce_on_cpu(items: Sequence[Any], dtype: torch.dtype, histogram: bool) -> MomentBatch:
    """Return the moments of small tensors of one dtype."""
    if dtype not in cpu.LAYOUTS:
        items = [TensorToReduce(one.tensor.detach().float(), one.axis) for one in items]
        dtype = torch.float32
    geometries: list[Geometry] = [one.geometry for one in items]
    tensors: list[Tensor] = [one.tensor for one in items]  # until their memory has been read
    for place, geometry in enumerate(geometries):
        if geometry is None:
            geometries[place], tensors[place] = in_order(tensors[place], items[place].axis)
    loops, layout = cpu.group_loops(dtype), layout_of(geometries)
    table = layout.table.copy()
    table[:, 0] = list(map(Tensor.data_ptr, tensors))
    values = np.empty(layout.size)
    counts = np.zeros((len(items), 4, loops.exponents if histogram else 0), np.int64)
    loops.reduce(table, loops.layout, counts, values)
    batch = MomentBatch(values, layout)
    if histogram:
        batch.magnitudes = [
            _magnitudes(item.tensor, batch.values_of(place), exponents)
            for place, (item, exponents) in enumerate(zip(items, counts, strict=True))
        ]
    return batch


def in_order(tensor: Tensor, axis: int | None) -> tuple[Geometry, Tensor]:
    """Return the geometry of a tensor, and the tensor with its elements in memory order."""
    if tensor.is_contiguous():
        return geometry_of(tensor.shape, axis), tensor
    ordered, place = cpu.in_memory_order(tensor.detach(), axis)
    geometry = geometry_of(ordered.shape, place)
    return geometry._replace(batch_size=tensor.shape[0], has_channels=axis is not None), ordered


def _magnitudes(tensor: Tensor, values: Any, exponents: np.ndarray) -> Tensor:
    nans = int(tensor.isnan().sum()) if values[-1] else 0
    return histograms.from_exponents(exponents.sum(0), int(values[-2]), nans)


@lru_cache(maxsize=4096)
def geometry_of(shape: torch.Size, axis: int | None) -> Geometry:
    """Return how the loops walk through a contiguous tensor."""
    elements, batch = math.prod(shape), shape[0] if shape else 1
    channels, run = 1, cpu.BLOCK
    if axis is not None and shape:
        axis %= len(shape)
        channels = shape[axis]
        run = cpu.BLOCK if channels == 1 else math.prod(shape[axis + 1 :])
    pieces = -(-elements // (channels if run == 1 else run))
    return Geometry(elements, channels, run, pieces, batch, axis is not None and bool(shape))
