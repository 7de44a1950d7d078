"""Learns what the tensors of a kind are in most steps, of such as are not small ones on the CPU.

Large ones on the CPU are reduced just after they were computed, while they are in a cache; so is
what is soon overwritten. What a call needs, its table or its task for the threads, is made once for
the tensors of one kind and used again. Those on a device wait for others, as small ones do.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.batches import Geometry
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.deferred.waiting import Habit, Usual
from gradflow.hooks.reduction.groups import geometry_of, in_order, layout_of

# So many numbers are kept for the sums of all threads at most, until the next call.
_MOST_KEPT = 1 << 14


def learn_tensor(
    habit: Habit, tensor: Tensor, axis: int | None, share: float | None = None
) -> None:
    """Learn what the tensors of a kind are usually from one of them.

    One that waits on a device takes the `share` of what may wait there; None, if it does not wait.
    Such as neither loops nor kernels take as they are have to be looked at each time.
    """
    device, known = None if share is None else _device_of(tensor), habit.usual
    if device is None and not _is_plain(tensor):
        habit.usual = None
        return
    shape, strides, dtype = tensor.shape, tensor.stride(), tensor.dtype
    if known is not None and (shape, axis, dtype, strides, device) == (
        known.shape,
        known.axis,
        known.dtype,
        known.strides,
        known.device,
    ):
        return
    habit.usual = None
    geometry, ordered = in_order(tensor, axis)
    if ordered.data_ptr() == tensor.data_ptr():  # else it has gaps, and was copied
        prepared = None if device is not None else _moments_of(geometry, dtype)
        takes = share or 0.0
        habit.usual = Usual(habit, shape, axis, dtype, geometry, takes, strides, prepared, device)


def learn_gradients(
    habit: Habit, gradients: tuple[Tensor, Tensor, Tensor], share: float | None = None
) -> None:
    """Learn what the gradients at an addition are usually, as from a tensor."""
    whole = gradients[0]
    habit.usual = None
    device = None if share is None else _device_of(whole)
    if device is None and not all(map(_is_plain, gradients)):
        return
    if not cpu.are_in_one_order(gradients):
        return
    shape, strides, dtype = whole.shape, whole.stride(), whole.dtype
    if all(one.stride() == strides and _device_of(one) == device for one in gradients):
        prepared = None if device is not None else LargeProducts(whole.numel(), dtype)
        geometry, takes = geometry_of(shape, None), share or 0.0
        habit.usual = Usual(habit, shape, None, dtype, geometry, takes, strides, prepared, device)


def _device_of(tensor: Tensor) -> torch.device | None:
    """The device of a tensor that may wait there; None for others."""
    return tensor.device if on_device.can_be_grouped(tensor) else None


def _is_plain(tensor: Tensor) -> bool:
    """Whether the loops read a tensor as it is."""
    return not tensor.is_nested and cpu.is_supported(tensor) and cpu.loops_module() is not None


class LargeMoments:
    """Reduces tensors of one geometry and dtype, each to the values of its `Moments`."""

    __slots__ = ("_dtype", "_geometry", "_kept")

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        self._geometry = geometry
        self._dtype = dtype
        # With the number of threads. A call takes the last, so that no other thread has it too.
        self._kept: list[tuple[int, Callable[[int], np.ndarray]]] = []

    def __call__(self, address: int) -> np.ndarray:
        """Return the values [3 C + 6] of the tensor at an address."""
        geometry = self._geometry
        threads = cpu.thread_count(geometry.elements, geometry.pieces)
        reduce = _taken(self._kept, threads)
        if reduce is None:
            reduce = self._made(threads)
        values: np.ndarray = reduce(address)
        if threads * geometry.channels <= _MOST_KEPT:
            self._kept.append((threads, reduce))
        return values

    def _made(self, threads: int) -> Callable[[int], np.ndarray]:
        if threads == 1:
            return _InOneThread(self._geometry, self._dtype)
        module = cpu.threads_module()
        assert module is not None
        layout = cpu.group_loops(self._dtype).layout
        made: Callable[[int], np.ndarray] = module.Reduction(
            cpu.NUMPY[self._dtype], threads, layout, *self._geometry[:4]
        )
        return made


@lru_cache(maxsize=1024)
def _moments_of(geometry: Geometry, dtype: torch.dtype) -> LargeMoments:
    """Return what reduces such tensors: one for all layers, since it keeps memory for the sums."""
    return LargeMoments(geometry, dtype)


class LargeProducts:
    """Computes `cpu.junction_products` of gradients of one size and dtype."""

    __slots__ = ("_dtype", "_elements", "_kept")

    def __init__(self, elements: int, dtype: torch.dtype) -> None:
        self._elements = elements
        self._dtype = dtype
        self._kept: list[tuple[int, Callable[[tuple[int, ...]], np.ndarray]]] = []

    def __call__(self, addresses: tuple[int, int, int]) -> np.ndarray:
        """Return the products [7] of the gradients dL/dx, s and b at these addresses."""
        threads = cpu.thread_count(self._elements)
        if threads == 1:
            products = np.empty((1, 7))
            table = np.array([(self._elements, *addresses)], np.int64)
            cpu.group_loops(self._dtype).multiply(table, products)
            found: np.ndarray = products[0]
            return found
        multiply = _taken(self._kept, threads)
        if multiply is None:
            module = cpu.threads_module()
            assert module is not None
            multiply = module.Products(cpu.NUMPY[self._dtype], threads, self._elements)
        found = multiply(addresses)
        self._kept.append((threads, multiply))
        return found


class _InOneThread:
    """Reduces tensors of one geometry and dtype in the thread that calls it."""

    __slots__ = ("_counts", "_loops", "_size", "_table")

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        layout = layout_of([geometry])
        self._loops = cpu.group_loops(dtype)
        self._table, self._size = layout.table.copy(), layout.size
        self._counts = np.zeros((1, 4, 0), np.int64)

    def __call__(self, address: int) -> np.ndarray:
        """Return the values [3 C + 6] of the tensor at an address."""
        values = np.empty(self._size)
        self._table[0, 0] = address
        self._loops.reduce(self._table, self._loops.layout, self._counts, values)
        return values


def _taken(kept: list[tuple[int, Any]], threads: int) -> Any:
    """Take one that is kept for so many threads; None if there is none."""
    try:
        known, one = kept.pop()
    except IndexError:
        return None
    return one if known == threads else None
