"""Reduces tensors in main memory with the compiled loops, where numba can be had.

Every function returns None for a tensor that the loops do not take, or where numba is missing or
finds no folder for its cache: the caller then does the same with torch. Large tensors are shared
out over as many threads as torch is set to use.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Fewer elements than this are not worth waking a second thread, for which torch's own threads,
# which spin for a while after their work, leave no core free at once.
_SHARED_FROM = 1 << 20
# By dtype: the number of exponents; all bits but the sign, bits of the mantissa, infinity.
_LAYOUTS: dict[torch.dtype, tuple[int, Any]] = {
    torch.float32: (1 << 8, np.array([(1 << 31) - 1, 23, 0xFF << 23], np.int32)),
    torch.float64: (1 << 11, np.array([(1 << 63) - 1, 52, 0x7FF << 52], np.int64)),
}
_NARROW = (torch.float16, torch.bfloat16)


@cache
def loops() -> ModuleType | None:
    """The compiled loops, tried out; None where they cannot be had."""
    try:
        module = import_module("gradflow.hooks.compiled")
        _try_out(module)
    except Exception:  # whatever fails here, torch computes the same
        return None
    return module


def _try_out(module: ModuleType) -> None:
    """Compile or load every loop, for both dtypes, so that none fails later."""
    for dtype, (_, layout) in _LAYOUTS.items():
        x = torch.ones(2, dtype=dtype).numpy()
        bits, counts = x.view(layout.dtype), np.zeros((4, 2048), np.int64)
        module.reduce_part(x, bits, layout, 1, 2, 0, 1, counts, np.zeros((2, 1)))
        module.reduce_whole(x, bits, layout, 1, 2, 1, counts, np.zeros(6))
        module.square_sum(x)
        module.inner_products(x, x)
        module.copy_and_square_sum(x, x.copy())
        module.square_distance(x, x)
        module.junction_products(x, x, x)


def _takes(x: Tensor) -> bool:
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and x.dtype in _LAYOUTS
        and x.numel() > 0
        and not x.is_neg()
    )


def _in_order(tensors: Sequence[Tensor]) -> list[np.ndarray] | None:
    """The elements of each tensor as they lie in memory; None unless all lie alike and densely."""
    first = tensors[0]
    if any(x.shape != first.shape or x.dtype != first.dtype for x in tensors):
        return None
    if not all(x.is_contiguous() for x in tensors):
        order = sorted(range(first.dim()), key=first.stride, reverse=True)
        tensors = [x.permute(order) for x in tensors]
        if not all(x.is_contiguous() for x in tensors):
            return None
    return [x.reshape(-1).numpy() for x in tensors]


def reduce(
    x: Tensor, channel_axis: int | None, *, exponents: bool
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The moments of x [N, C, S], detached, not empty: [3 C + 3], as `fused.Moments` keeps them.

    With them, if asked for, the counts of biased exponents: [256], or [2048] for float64.
    """
    if x.dtype in _NARROW and x.device.type == "cpu":
        x = x.float()
    module = loops()
    if module is None or not _takes(x):
        return None
    flat, channels, run = _flatten(x, channel_axis)
    if channels == 1:
        run = module.BLOCK  # the last run is what is left
    pieces = -(-flat.size // (channels if run == 1 else run))
    bins, layout = _LAYOUTS[x.dtype]
    bits = flat.view(layout.dtype)
    result = np.empty(3 * channels + 3)
    shares = _shares(pieces, flat.size)
    counts = np.zeros((len(shares), 4, bins if exponents else 0), np.int64)
    if len(shares) == 1:
        module.reduce_whole(flat, bits, layout, channels, run, pieces, counts[0], result)
    else:
        sums = np.zeros((len(shares), 2, channels))
        found = _each(
            lambda part: module.reduce_part(
                flat, bits, layout, channels, run, *shares[part], counts[part], sums[part]
            ),
            range(len(shares)),
        )
        largest = layout.dtype.type(max(magnitude for magnitude, _ in found))
        zeros = sum(zeros for _, zeros in found)
        module.complete(flat, bits, layout, channels, run, sums.sum(0), largest, zeros, result)
    return result, counts.sum((0, 1)) if exponents else None


def square_sum(x: Tensor) -> float | None:
    """<x, x> in float64."""
    found: float | None = _summed("square_sum", x)
    return found


def inner_products(x: Tensor, y: Tensor) -> tuple[float, float, float] | None:
    """<x, x>, <x, y> and <y, y> in float64."""
    found: tuple[float, float, float] | None = _summed("inner_products", x, y)
    return found


def square_distance(x: Tensor, y: Tensor) -> float | None:
    """<x - y, x - y> in float64."""
    found: float | None = _summed("square_distance", x, y)
    return found


def copy_and_square_sum(x: Tensor, kept: Tensor) -> float | None:
    """Copy x into `kept`, and return <x, x> in float64."""
    found: float | None = _summed("copy_and_square_sum", x, kept)
    return found


def junction_products(w: Tensor, s: Tensor, b: Tensor) -> tuple[float, ...] | None:
    """What `junctions.route_products` returns without further gradients, in float64."""
    found: tuple[float, ...] | None = _summed("junction_products", w, s, b)
    return found


def _summed(name: str, *tensors: Tensor) -> Any:
    """The sums of loop `name` over shares of flat tensors, added up."""
    module = loops()
    arrays = _in_order(tensors) if module and all(map(_takes, tensors)) else None
    if module is None or arrays is None:
        return None
    loop = getattr(module, name)
    size = arrays[0].size
    shares = _shares(size, size)
    if len(shares) == 1:
        return loop(*arrays)
    found = _each(lambda share: loop(*(array[slice(*share)] for array in arrays)), shares)
    return sum(found) if isinstance(found[0], float) else tuple(map(sum, zip(*found, strict=True)))


def _flatten(x: Tensor, channel_axis: int | None) -> tuple[np.ndarray, int, int]:
    """The elements of x as they lie in memory, the number of channels, and the length of a run."""
    x, channel_axis = as_it_lies(x, channel_axis)
    flat = x.reshape(-1).numpy()
    if channel_axis is None:
        return flat, 1, flat.size
    return flat, x.shape[channel_axis], math.prod(x.shape[channel_axis + 1 :])


def as_it_lies(x: Tensor, channel_axis: int | None) -> tuple[Tensor, int | None]:
    """x, contiguous, with its axes in the order in which they lie in memory, and its channel axis.

    A permutation, such as channels-last, is not copied; a tensor with gaps or repetitions is.
    """
    axis = None if channel_axis is None else channel_axis % x.dim()
    if x.is_contiguous():
        return x, axis
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    permuted = x.permute(order)
    if not permuted.is_contiguous():
        return x.contiguous(), axis
    return permuted, None if axis is None else order.index(axis)


def _shares(pieces: int, elements: int) -> list[tuple[int, int]]:
    """The pieces shared out over threads, as ranges."""
    threads = min(torch.get_num_threads(), pieces) if elements >= _SHARED_FROM else 1
    bounds = [pieces * part // threads for part in range(threads + 1)]
    return list(pairwise(bounds))


def _each(task: Callable[[Any], Any], inputs: Sequence[Any]) -> list[Any]:
    """`task` of every input, each in a thread of its own; the last one in this thread."""
    waiting = [_pool(len(inputs), os.getpid()).submit(task, value) for value in inputs[:-1]]
    last = task(inputs[-1])
    return [*(future.result() for future in waiting), last]


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads for `process`: one that was forked off has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gradflow")
