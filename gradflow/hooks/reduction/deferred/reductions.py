"""Reduces what waits, in groups."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.deferred.known import learn_gradients, learn_tensor
from gradflow.hooks.reduction.deferred.noted import UsualReductions
from gradflow.hooks.reduction.deferred.waiting import (
    MOST_SMALL_BYTES,
    DeferredMoments,
    DeferredProducts,
    Habit,
    Usual,
    WaitingGradients,
    WaitingTensor,
)
from gradflow.hooks.reduction.groups import (
    ON_CPU,
    TensorToReduce,
    are_alike,
    geometry_of,
    multiply_group,
    reduce_elsewhere,
    reduce_group,
    reduce_small,
)
from gradflow.hooks.reduction.moments import Moments

_STRIDED = torch.strided
_MOST_ELEMENTS = cpu.MIN_SHARED_ELEMENTS
# How many tensors wait at most, and how many bytes of them on a device.
MOST_TENSORS, MOST_BYTES = 128, 1 << 26


class Reductions:
    """Reduces tensors in groups.

    Fields:
        overwritten: the names of what was overwritten before its group was due, and is missing.
        note_usual, note_usual_gradients, end_step: those of `UsualReductions`.
    """

    def __init__(self) -> None:
        self.overwritten: list[str] = []
        self._usual = UsualReductions(_reduce, self._note_overwritten)
        self.note_usual = self._usual.note
        self.note_usual_gradients = self._usual.note_gradients
        self.end_step = self._usual.end_step
        self._moments: list[WaitingTensor] = []
        self._products: list[WaitingGradients] = []
        self._bytes = 0
        self._trying = False
        self._doubts: list[tuple[Habit, Tensor]] = []
        # Autograd has a thread for each device.
        self._lock = Lock()

    def reduce(
        self, tensor: Tensor, axis: int | None, histogram: bool, habit: Habit
    ) -> DeferredMoments | Moments | None:
        """Return the moments of `tensor`: at once or deferred; None if it has none."""
        is_small = not habit.at_once and _may_wait(tensor)
        if habit.at_once or not (is_small or _may_wait_on_device(tensor)):
            learn_tensor(habit, tensor, axis)
            return _reduce(tensor, axis, histogram)
        waiting = WaitingTensor(tensor, axis, histogram, habit, is_small)
        if habit.tried and not is_small:
            learn_tensor(habit, tensor, axis, tensor.nbytes / MOST_BYTES)
        if not habit.tried:
            self._trying = True
            waiting.found = _reduce(tensor, axis, histogram)
            if waiting.found is None:
                return None
        self._moments.append(waiting)
        self._bytes += tensor.nbytes
        most = MOST_SMALL_BYTES if is_small else MOST_BYTES
        if self._trying or self._bytes >= most or len(self._moments) >= MOST_TENSORS:
            self._flush_if_due()
        return waiting

    def multiply(
        self,
        gradients: tuple[Tensor, Tensor, Tensor],
        habit: Habit,
        compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> DeferredProducts:
        """Return the products of the gradients at a residual addition, as `compute` does."""
        waiting = WaitingGradients(gradients, habit, compute)
        whole, skip, branch = gradients
        is_small = can_wait = False
        if not habit.at_once:
            is_small = _may_wait(whole) and _may_wait(skip) and _may_wait(branch)
            can_wait = is_small or (
                on_device.can_multiply(whole, skip, branch)
                and all(_stays(one) and on_device.is_in_order(one) for one in gradients)
            )
        if not (habit.tried and can_wait):
            self._trying |= can_wait
            waiting.products = compute(*gradients)
        if can_wait:
            if is_small and habit.tried and whole.dtype in cpu.LAYOUTS and are_alike(*gradients):
                # The next ones of this kind need not be looked at before their group is due.
                geometry, share = geometry_of(whole.shape, None), waiting.size / MOST_SMALL_BYTES
                habit.usual = Usual(habit, whole.shape, None, whole.dtype, geometry, share)
            elif habit.tried and not is_small:
                learn_gradients(habit, gradients, waiting.size / MOST_BYTES)
            self._products.append(waiting)
            self._bytes += waiting.size
            most = MOST_SMALL_BYTES if is_small else MOST_BYTES
            many = len(self._products) >= MOST_TENSORS
            if self._trying or many or self._bytes >= most:
                self._flush_if_due()
        else:
            learn_gradients(habit, gradients)
            waiting.release()
        return waiting

    def flush(self) -> None:
        """Reduce all that waits."""
        self._usual.flush()
        if self._moments or self._products:
            self._trying = False
            self._flush(len(self._moments), len(self._products))

    def _note_overwritten(self, habit: Habit) -> None:
        habit.wait_no_more()
        self.overwritten.append(habit.name)

    def drop(self) -> None:
        """Reduce nothing of what waits: an error may have left a device that cannot."""
        self._usual.drop()
        with self._lock:
            self._moments, self._products, self._doubts = [], [], []
            self._bytes = 0
            self._trying = False

    def settle_doubts(self) -> None:
        """Compare what was reduced twice on a device, if anything was; waits for the device."""
        doubts, self._doubts = self._doubts, []
        for habit, differs in doubts:
            if bool(differs):
                habit.wait_no_more()

    def _flush(self, moments: int, products: int) -> None:
        """Reduce those that have waited longest: so many tensors, and so many products."""
        with self._lock:
            first, second = self._moments[:moments], self._products[:products]
            # Another thread may add to the end of the lists meanwhile.
            del self._moments[:moments], self._products[:products]
            self._bytes = sum(one.size for one in self._moments)
            self._bytes += sum(one.size for one in self._products)
            if first:
                self._reduce_all(first)
            if second:
                self._multiply_all(second)

    def _flush_if_due(self) -> None:
        if not self._trying:
            self.flush()
        elif self._bytes >= MOST_BYTES:
            # The groups of later steps have fewer tensors, for those that cannot wait are left out.
            self._flush((len(self._moments) + 1) // 2, (len(self._products) + 1) // 2)

    def _reduce_all(self, waiting: Sequence[WaitingTensor]) -> None:
        changed = [one for one in waiting if not one.is_unchanged()]
        for one in changed:
            self._note_change(one)
        ready = waiting if not changed else [one for one in waiting if one.is_unchanged()]
        small = [one for one in ready if one.is_small]
        others = [one for one in ready if not one.is_small] if len(small) < len(ready) else ()
        if others:
            for one, found in zip(others, reduce_elsewhere(others), strict=True):
                self._put(one, found)
        for places, batch in reduce_small(small):
            for at, place in enumerate(places):
                one = small[place]
                if one.found is None:
                    one.found, one.place = batch, at
                elif not one.habit.tried:
                    self._put(one, batch.moments(at))
        for one in waiting:
            one.tensor = None

    def _put(self, one: WaitingTensor, found: Moments | None) -> None:
        if one.found is None:
            one.found = found
        elif not one.habit.tried:
            assert isinstance(one.found, Moments)
            self._try(one.habit, one.found, found)

    def _try(self, habit: Habit, alone: Moments, in_group: Moments | None) -> None:
        habit.tried = True
        if in_group is None:
            habit.wait_no_more()
        elif isinstance(alone.values, Tensor) and not alone.values.is_cpu:
            self._doubts.append((habit, on_device.differ(alone, in_group)))
        elif not _are_same(alone.values, in_group.values):
            habit.wait_no_more()

    def _multiply_all(self, waiting: Sequence[WaitingGradients]) -> None:
        ready = [one for one in waiting if one.is_unchanged() or self._note_change(one)]
        for one, found in zip(ready, multiply_group(ready), strict=True):
            habit = one.habit
            if one.products is None:
                one.products = (
                    one.compute(one.whole, one.skip, one.branch) if found is None else found
                )
            elif not habit.tried:
                habit.tried = True
                if isinstance(found, Tensor):
                    alone = torch.as_tensor(one.products)
                    self._doubts.append((habit, on_device.products_differ(alone, found)))
                elif found is None or not _are_same(one.products, found):
                    habit.wait_no_more()
        for one in waiting:
            one.release()

    def _note_change(self, one: WaitingTensor | WaitingGradients) -> bool:
        """Note that a tensor was overwritten before its group was due; return False."""
        one.habit.wait_no_more()
        if (one.found if isinstance(one, WaitingTensor) else one.products) is None:
            self.overwritten.append(one.habit.name)
        return False


def _may_wait(tensor: Tensor) -> bool:
    """Whether a tensor on the CPU is small, and stays as it is until something overwrites it.

    As `groups.is_small` and `_stays`, in one call.
    """
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and 0 < tensor.numel() < _MOST_ELEMENTS
        and tensor.dtype in ON_CPU
        and tensor.layout is _STRIDED
        and not tensor.is_nested
        and not tensor.is_neg()
        and not tensor.is_inference()
        and (
            type(tensor._base) is Tensor
            if tensor._is_view()
            else not tensor.requires_grad or not tensor.is_leaf
        )
        and cpu.loops_module() is not None
    )


def _may_wait_on_device(tensor: Tensor) -> bool:
    return on_device.can_be_grouped(tensor) and _stays(tensor) and on_device.is_in_order(tensor)


def _stays(tensor: Tensor) -> bool:
    if tensor.is_inference():
        return False  # it has no version that would tell of a change
    if tensor._is_view():
        # FSDP frees the memory of parameters after use, and fills it again.
        return type(tensor._base) is Tensor
    return tensor.grad_fn is not None or not tensor.requires_grad


def _reduce(tensor: Tensor, axis: int | None, histogram: bool) -> Moments | None:
    return reduce_group((TensorToReduce(tensor, axis, histogram),))[0]


def _are_same(first: Any, second: Any) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second), equal_nan=True)
