"""Reductions that wait until there are enough tensors for a group; see `groups`.

A hook that reduces its tensor at once costs a call for each tensor. So the tensor is only noted,
and all that wait are reduced together: when they are 32 or have 64 MB, and when a forward or
backward pass ends. By then a tensor may have been overwritten: by `ReLU(inplace=True)`, by
`x += ...`, or because its memory was freed. Its numbers would be wrong. So:

- The first time that a layer's output, or its gradient, is seen, it is reduced at once, and again
  with its group, for which it waits longer than it ever will. If that gives other numbers, or
  autograd counts another version of the tensor, it never waits.
- Autograd's version and the address are compared before a group is reduced. If they differ, the
  value is missing in this step, which is said once, and the layer's tensors never wait again.
- On a device, both numbers of the first time are compared once the step has ended, for which it
  is waited for. Two kernels add in another order, so they may differ by rounding.
- Large tensors on the CPU, parameters and views of them never wait, nor do tensors of a device that
  works on several streams.

A tensor that waits is kept in memory, and autograd does not reuse it for a sum of gradients: it
makes a new tensor with the same numbers.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.fused import Moments
from gradflow.hooks.reduction.groups import TensorToReduce, is_small, multiply_group, reduce_group

MOST_TENSORS, MOST_BYTES = 32, 1 << 26


class Habit:
    """What is known of the tensors of one kind: a layer's outputs, or their gradients.

    Fields:
        name: what they are, for messages.
        tried: whether one has been reduced both at once and with its group.
        at_once: whether they are not to wait.
    """

    __slots__ = ("at_once", "name", "tried")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tried = self.at_once = False


class DeferredMoments:
    """The moments of a tensor that waits to be reduced.

    Fields:
        tensor, axis, histogram, is_small: as in `groups.TensorToReduce`; the tensor is None once it
            is done.
        habit: what is known of such tensors.
        moments: None until they are known; and after, if the tensor was overwritten before.
    """

    __slots__ = (
        "_address",
        "_version",
        "axis",
        "habit",
        "histogram",
        "is_small",
        "moments",
        "tensor",
    )

    def __init__(self, tensor: Any, axis: int | None, histogram: bool, habit: Habit) -> None:
        self.tensor = tensor
        self.axis = axis
        self.histogram = histogram
        self.habit = habit
        self.moments: Moments | None = None
        self.is_small = tensor.is_cpu
        self._version = tensor._version
        self._address = tensor.data_ptr()

    @property
    def size(self) -> int:
        """The bytes of the tensor."""
        return int(self.tensor.nbytes)

    def is_unchanged(self) -> bool:
        """Whether the tensor is as it was when it was noted."""
        tensor = self.tensor
        return tensor._version == self._version and tensor.data_ptr() == self._address  # type: ignore[no-any-return]


class DeferredProducts:
    """The `cpu.junction_products` of gradients that wait.

    Fields:
        whole, skip, branch: the gradients, as in `groups.GradientsToMultiply`, until it is done.
        habit: what is known of such gradients.
        compute: what computes the products of those that cannot go with others.
        products: [7], or None as in `DeferredMoments`.
    """

    __slots__ = ("_versions", "branch", "compute", "habit", "products", "skip", "whole")

    def __init__(
        self,
        gradients: tuple[Tensor, Tensor, Tensor],
        habit: Habit,
        compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> None:
        self.whole, self.skip, self.branch = gradients
        self.habit = habit
        self.compute = compute
        self.products: Tensor | None = None
        self._versions = self._seen()

    @property
    def size(self) -> int:
        """The bytes of the gradients."""
        return 3 * self.whole.nbytes

    def is_unchanged(self) -> bool:
        """Whether the gradients are as they were when they were noted."""
        return self._versions == self._seen()

    def _seen(self) -> tuple[int, ...]:
        whole, skip, branch = self.whole, self.skip, self.branch
        return (
            whole._version,
            skip._version,
            branch._version,
            whole.data_ptr(),
            skip.data_ptr(),
            branch.data_ptr(),
        )

    def release(self) -> None:
        """Let go of the gradients."""
        del self.whole, self.skip, self.branch


# Stands for a value that is missing, as one that waits does for one that is not known yet.
MISSING = DeferredMoments(torch.empty(0), None, False, Habit(""))


class Reductions:
    """Reduces tensors in groups.

    Fields:
        overwritten: the names of what was overwritten before its group was due, and is missing.
    """

    def __init__(self) -> None:
        self.overwritten: list[str] = []
        self._moments: list[DeferredMoments] = []
        self._products: list[DeferredProducts] = []
        self._bytes = 0
        self._trying = False
        self._doubts: list[tuple[Habit, Tensor]] = []
        # Autograd has a thread for each device.
        self._lock = Lock()

    def reduce(
        self, tensor: Tensor, axis: int | None, histogram: bool, habit: Habit
    ) -> DeferredMoments | Moments | None:
        """Return the moments of `tensor`: at once or deferred; None if it has none."""
        if habit.at_once or not (_may_wait(tensor) or _may_wait_on_device(tensor)):
            return _reduce(tensor, axis, histogram)
        waiting = DeferredMoments(tensor, axis, histogram, habit)
        if not habit.tried:
            self._trying = True
            waiting.moments = _reduce(tensor, axis, histogram)
            if waiting.moments is None:
                return None
        self._moments.append(waiting)
        self._bytes += tensor.nbytes
        if self._trying or self._bytes >= MOST_BYTES or len(self._moments) >= MOST_TENSORS:
            self._flush_if_due()
        return waiting

    def multiply(
        self,
        gradients: tuple[Tensor, Tensor, Tensor],
        habit: Habit,
        compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> DeferredProducts:
        """Return the products of the gradients at a residual addition, as `compute` does."""
        waiting = DeferredProducts(gradients, habit, compute)
        whole, skip, branch = gradients
        can_wait = not habit.at_once and _may_wait(whole) and _may_wait(skip) and _may_wait(branch)
        if not (habit.tried and can_wait):
            self._trying |= can_wait
            waiting.products = compute(*gradients)
        if can_wait:
            self._products.append(waiting)
            self._bytes += waiting.size
            if self._trying or self._bytes >= MOST_BYTES or len(self._products) >= MOST_TENSORS:
                self._flush_if_due()
        else:
            waiting.release()
        return waiting

    def flush(self) -> None:
        """Reduce all that waits."""
        if self._moments or self._products:
            self._trying = False
            self._flush(len(self._moments), len(self._products))

    def drop(self) -> None:
        """Reduce nothing of what waits: an error may have left a device that cannot."""
        with self._lock:
            self._moments, self._products, self._doubts = [], [], []
            self._bytes = 0
            self._trying = False

    def settle_doubts(self) -> None:
        """Compare what was reduced twice on a device, if anything was; waits for the device."""
        doubts, self._doubts = self._doubts, []
        for habit, differs in doubts:
            habit.at_once |= bool(differs)

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

    def _reduce_all(self, waiting: Sequence[DeferredMoments]) -> None:
        ready = [one for one in waiting if one.is_unchanged() or self._note_change(one)]
        for one, found in zip(ready, reduce_group(ready), strict=True):
            if one.moments is None:
                one.moments = found
            elif not one.habit.tried:
                self._try(one.habit, one.moments, found)
        for one in waiting:
            one.tensor = None

    def _try(self, habit: Habit, alone: Moments, in_group: Moments | None) -> None:
        habit.tried = True
        if in_group is None:
            habit.at_once = True
        elif isinstance(alone.values, Tensor) and not alone.values.is_cpu:
            self._doubts.append((habit, on_device.differ(alone, in_group)))
        else:
            habit.at_once = not _are_same(alone.values, in_group.values)

    def _multiply_all(self, waiting: Sequence[DeferredProducts]) -> None:
        ready = [one for one in waiting if one.is_unchanged() or self._note_change(one)]
        for one, found in zip(ready, multiply_group(ready), strict=True):
            habit = one.habit
            if one.products is None:
                one.products = (
                    one.compute(one.whole, one.skip, one.branch) if found is None else found
                )
            elif not habit.tried:
                habit.tried = True
                habit.at_once = found is None or not _are_same(one.products, found)
        for one in waiting:
            one.release()

    def _note_change(self, one: DeferredMoments | DeferredProducts) -> bool:
        """Note that a tensor was overwritten before its group was due; return False."""
        one.habit.at_once = True
        if (one.moments if isinstance(one, DeferredMoments) else one.products) is None:
            self.overwritten.append(one.habit.name)
        return False


def _may_wait(tensor: Tensor) -> bool:
    """Whether a tensor on the CPU is small, and stays as it is until something overwrites it."""
    return is_small(tensor) and _stays(tensor)


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
