"""Reduces tensors on the CPU with the compiled loops, if numba is available.

Every reduction returns None if the loops do not support the tensor, or if numba is missing or has
no folder for its cache; the caller then uses torch. Large tensors are divided among torch's own
threads, if its OpenMP runtime is available.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# With fewer elements, waking a second thread costs more than it saves.
MIN_SHARED_ELEMENTS = 1 << 15
# By dtype: the number of exponents, and the `layout` that `compiled` describes.
LAYOUTS: dict[torch.dtype, tuple[int, Any]] = {
    torch.float32: (1 << 8, np.array([(1 << 31) - 1, 23, 0xFF << 23], np.int32)),
    torch.float64: (1 << 11, np.array([(1 << 63) - 1, 52, 0x7FF << 52], np.int64)),
}
# The dtypes that the loops read, as numpy names them.
NUMPY: dict[torch.dtype, Any] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
_HALF_PRECISION = (torch.float16, torch.bfloat16)
# Elements that a loop processes together.
BLOCK = 4096


class GroupLoops(NamedTuple):
    """The loops of `compiled_groups` for one dtype, its layout and its number of exponents."""

    reduce: Callable[..., None]
    multiply: Callable[..., None]
    layout: np.ndarray
    exponents: int


@cache
def group_loops(dtype: torch.dtype) -> GroupLoops:
    """Return the loops over groups of tensors; call it only if there is a `loops_module`."""
    module = import_module("gradflow.hooks.reduction.loops.compiled_groups")
    name = str(dtype).removeprefix("torch.")
    exponents, layout = LAYOUTS[dtype]
    reduce, multiply = getattr(module, f"reduce_{name}"), getattr(module, f"junctions_{name}")
    return GroupLoops(reduce, multiply, layout, exponents)


@cache
def loops_module() -> ModuleType | None:
    """Return the module of the compiled loops, or None if it does not work here."""
    try:
        module = import_module("gradflow.hooks.reduction.loops.compiled")
        _try_out(module)
    except Exception:  # on any failure, torch computes the same numbers
        return None
    return module


@cache
def threads_module() -> ModuleType | None:
    """Return the module that runs loops in torch's threads, or None if it does not work here."""
    if loops_module() is None:
        return None
    try:
        module = import_module("gradflow.hooks.reduction.loops.threads")
        for dtype in LAYOUTS:
            x = torch.arange(64, dtype=dtype).numpy()
            found = _sum_in_shares(module, "inner_products", (x, x + 1), 2)
            if found != (85344.0, 87360.0, 89440.0):
                return None
    except Exception:  # on any failure, one thread computes the same numbers
        return None
    return module


@cache
def addresses_module() -> ModuleType | None:
    """Return the module that reads many tensors in one call, or None if it does not work here."""
    if loops_module() is None:
        return None
    try:
        module = import_module("gradflow.hooks.reduction.loops.addresses")
        for dtype in LAYOUTS:
            x, y = torch.arange(64, dtype=dtype), torch.arange(1, 65, dtype=dtype)
            table = np.array([[x.data_ptr(), y.data_ptr(), 64]])
            sums = np.zeros((1, module.SUMS))
            module.run("inner_products", x.numpy().dtype, table, sums)
            if sums.tolist() != [[85344.0, 87360.0, 89440.0]]:
                return None
    except Exception:  # on any failure, each tensor is read alone
        return None
    return module


def _try_out(module: ModuleType) -> None:
    """Compile or load every loop for both dtypes, so that none fails later."""
    for dtype, (_, layout) in LAYOUTS.items():
        x = torch.ones(2, dtype=dtype).numpy()
        bits, counts = x.view(layout.dtype), np.zeros((4, 2048), np.int64)
        module.reduce_part(x, bits, layout, 1, 2, 0, 1, counts, np.zeros(4))
        module.square_sum(x)
        module.inner_products(x, x)
        module.copy_and_square_sum(x, x.copy())
        module.square_distance(x, x)
        module.junction_products(x, x, x)
        loops, at_x = group_loops(dtype), x.ctypes.data
        table = np.array([[at_x, 2, 1, BLOCK, 1]])
        loops.reduce(table, layout, np.zeros((1, 4, 2048), np.int64), np.zeros(9))
        loops.multiply(np.array([[2, at_x, at_x, at_x]]), np.zeros((1, 7)))


def is_supported(x: Tensor) -> bool:
    """Whether the loops read a tensor that is not nested, once its elements are in order."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and x.dtype in LAYOUTS
        and x.numel() > 0
        and not x.is_neg()
    )


def _flat_arrays(tensors: Sequence[Tensor]) -> list[np.ndarray] | None:
    """Return the elements of each tensor in memory order; None unless all are dense and alike."""
    ordered = _in_one_order(tensors)
    return None if ordered is None else [x.reshape(-1).numpy() for x in ordered]


def are_in_one_order(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors are dense and alike, so that their elements in memory order belong together.

    Those elements are what the loops read."""
    return _in_one_order(tensors) is not None


def _in_one_order(tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """Return the tensors with their axes in memory order; None unless all are dense and alike."""
    first = tensors[0]
    if any(x.shape != first.shape or x.dtype != first.dtype for x in tensors):
        return None
    if not all(x.is_contiguous() for x in tensors):
        order = sorted(range(first.dim()), key=first.stride, reverse=True)
        tensors = [x.permute(order) for x in tensors]
        if not all(x.is_contiguous() for x in tensors):
            return None
    return tensors


def reduce(
    x: Tensor, channel_axis: int | None, *, exponents: bool
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Return the values of `Moments` for a detached, non-empty x [N, C, S]: [3 C + 6].

    If asked for, also return the counts of biased exponents: [256], or [2048] for float64.
    """
    if x.dtype in _HALF_PRECISION and x.device.type == "cpu":
        x = x.float()
    module = loops_module()
    if module is None or not is_supported(x):
        return None
    flat, channels, run = _flatten_runs(x, channel_axis)
    if channels == 1:
        run = BLOCK  # the last run has the remaining elements
    pieces = -(-flat.size // (channels if run == 1 else run))
    bins, layout = LAYOUTS[x.dtype]
    result = np.empty(3 * channels + 6)
    threads = thread_count(flat.size, pieces)
    counts = np.zeros((threads, 4, bins if exponents else 0), np.int64)
    if threads == 1:
        # As in a group: other machine code might add in another order.
        table = np.array([[flat.ctypes.data, flat.size, channels, run, pieces]])
        group_loops(x.dtype).reduce(table, layout, counts, result)
    else:
        bits = flat.view(layout.dtype)
        sums = np.zeros((threads, 2 * channels + 2))
        extremes = _reduce_in_shares(flat, layout, channels, run, pieces, counts, sums)
        largest, zeros = layout.dtype.type(extremes[:, 0].max()), extremes[:, 1].sum()
        module.complete(flat, bits, layout, channels, run, sums.sum(0), largest, zeros, result)
    return result, counts.sum((0, 1)) if exponents else None


def _reduce_in_shares(
    flat: np.ndarray,
    layout: np.ndarray,
    channels: int,
    run: int,
    pieces: int,
    counts: np.ndarray,
    sums: np.ndarray,
) -> np.ndarray:
    """Run `compiled.reduce_part` over shares of the pieces.

    Return the bits of the largest magnitude and the count of zeros of each share: [shares, 2]."""
    module = threads_module()
    assert module is not None
    threads = len(sums)
    extremes = np.zeros((threads, 2), np.int64)
    module.run_task(
        flat.dtype,
        threads,
        loop=module.REDUCE,
        size=flat.size,
        pieces=pieces,
        channels=channels,
        run=run,
        bins=counts.shape[-1],
        at_x=flat,
        at_layout=layout,
        at_counts=counts,
        at_sums=sums,
        at_extremes=extremes,
    )
    return extremes


def square_sum(x: Tensor) -> float | None:
    """<x, x> in float64."""
    found: float | None = _sums_of("square_sum", x)
    return found


def inner_products(x: Tensor, y: Tensor) -> tuple[float, float, float] | None:
    """<x, x>, <x, y> and <y, y> in float64."""
    found: tuple[float, float, float] | None = _sums_of("inner_products", x, y)
    return found


def square_distance(x: Tensor, y: Tensor) -> float | None:
    """<x - y, x - y> in float64."""
    found: float | None = _sums_of("square_distance", x, y)
    return found


def copy_and_square_sum(x: Tensor, kept: Tensor) -> float | None:
    """Copy x into `kept`, and return <x, x> in float64."""
    found: float | None = _sums_of("copy_and_square_sum", x, kept)
    return found


def junction_products(w: Tensor, s: Tensor, b: Tensor) -> tuple[float, ...] | None:
    """The result of `junctions.gradient_products` without other gradients, in float64."""
    found: tuple[float, ...] | None = _sums_of("junction_products", w, s, b)
    return found


def _sums_of(name: str, *tensors: Tensor) -> Any:
    """Return the result of loop `name` for the flattened tensors."""
    module = loops_module()
    arrays = _flat_arrays(tensors) if module and all(map(is_supported, tensors)) else None
    if module is None or arrays is None:
        return None
    threads = thread_count(arrays[0].size)
    if threads == 1:
        return getattr(module, name)(*arrays)
    sharing = threads_module()
    assert sharing is not None
    found = _sum_in_shares(sharing, name, arrays, threads)
    return found[0] if len(found) == 1 else found


def _sum_in_shares(
    module: ModuleType, name: str, arrays: Sequence[np.ndarray], threads: int
) -> tuple[float, ...]:
    """Return the sums of loop `name`, added up over the shares of `arrays`."""
    results = np.zeros((threads, module.MAX_SUMS))
    size = arrays[0].size
    x, y, z = (*arrays, arrays[0], arrays[0])[:3]
    loop = module.LOOPS.index(name)
    fields = {"at_x": x, "at_y": y, "at_z": z, "at_results": results}
    module.run_task(x.dtype, threads, loop=loop, size=size, pieces=size, **fields)
    totals: list[float] = results.sum(0).tolist()
    return tuple(totals[: module.SUM_COUNTS[name]])


def _flatten_runs(x: Tensor, channel_axis: int | None) -> tuple[np.ndarray, int, int]:
    """Return the elements of x in memory order, the number of channels, and the length of a run."""
    x, channel_axis = in_memory_order(x, channel_axis)
    flat = x.reshape(-1).numpy()
    if channel_axis is None:
        return flat, 1, flat.size
    return flat, x.shape[channel_axis], math.prod(x.shape[channel_axis + 1 :])


def in_memory_order(x: Tensor, channel_axis: int | None) -> tuple[Tensor, int | None]:
    """Return x, contiguous, with its axes in memory order, and its channel axis.

    A permuted tensor, such as channels-last, is not copied; one with gaps or repetitions is.
    """
    axis = None if channel_axis is None else channel_axis % x.dim()
    if x.is_contiguous():
        return x, axis
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    permuted = x.permute(order)
    if not permuted.is_contiguous():
        return x.contiguous(), axis
    return permuted, None if axis is None else order.index(axis)


def thread_count(elements: int, pieces: int | None = None) -> int:
    """Return how many threads share the elements of tensors, if these come in so many pieces."""
    if elements < MIN_SHARED_ELEMENTS or pieces == 1:
        return 1
    wanted = torch.get_num_threads() if pieces is None else min(torch.get_num_threads(), pieces)
    return wanted if wanted > 1 and threads_module() is not None else 1
