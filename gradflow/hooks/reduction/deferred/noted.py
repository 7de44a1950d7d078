"""What waits of which all is known beforehand; see `usual`."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from torch import Tensor

from gradflow.hooks.reduction.batches import MomentBatch
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.deferred.usual import (
    NOTED,
    UsualGradients,
    UsualGroups,
    UsualProducts,
    is_usual,
)
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, Habit, Usual
from gradflow.hooks.reduction.groups import layout_of
from gradflow.hooks.reduction.moments import Moments

# How many tensors wait at most of which all is known.
MOST_USUAL = 256
# How many entries of a list are of one large tensor.
_READ = 3


class UsualReductions:
    """Reduces tensors that are as usual, in groups.

    `reduce_alone` reduces one that is not, given with axis and histogram; `note_overwritten` is
    told the habit of one that was overwritten before its group was due, and is missing.
    """

    def __init__(
        self,
        reduce_alone: Callable[[Tensor, int | None, bool], Moments | None],
        note_overwritten: Callable[[Habit], None],
    ) -> None:
        self._reduce_alone = reduce_alone
        self._note_overwritten = note_overwritten
        self._noted: list[Any] = []
        self._gradients: list[UsualGradients] = []
        # Of large tensors their values, geometry and moments, one after the other as in `_noted`.
        self._large: list[Any] = []
        # How much more may wait, of 1.
        self._room = 1.0
        self._groups, self._multiplied = UsualGroups(), UsualProducts()
        # Moments to be used again, and those of this step: new ones are garbage to be collected.
        self._spare: list[DeferredMoments] = []
        self._given: list[DeferredMoments] = []
        # Autograd has a thread for each device.
        self._lock = Lock()

    def drop(self) -> None:
        """Reduce nothing of what waits."""
        with self._lock:
            self._large.clear()
            self._noted.clear()
            self._gradients.clear()
            self._room = 1.0

    def note(self, tensor: Tensor, usual: Usual) -> DeferredMoments:
        """Let a tensor wait of which all is known; return its moments, for this step alone.

        Raises `RuntimeError` for a tensor without a version or an address, and for one that was
        made on another stream than those that it would wait with.
        """
        version, address = tensor._version, tensor.data_ptr()
        if not address or (usual.device is not None and not on_device.is_in_order(tensor)):
            raise RuntimeError("the tensor cannot wait")
        seen = self._spare.pop() if self._spare else DeferredMoments()
        seen.found = None
        if usual.prepared is not None:
            self._reduce_large(tensor, address, usual, usual.prepared, seen)
            return seen
        noted = self._noted
        noted += (tensor, version, address, usual, seen)
        self._room -= usual.share
        if self._room <= 0 or len(noted) >= MOST_USUAL * NOTED:
            self.flush()
        return seen

    def end_step(self) -> None:
        """Let the moments that `note` has returned be used again: none is read any more."""
        self._spare += self._given
        self._given.clear()

    def _reduce_large(
        self,
        tensor: Tensor,
        address: int,
        usual: Usual,
        reduce: Callable[[int], np.ndarray],
        seen: DeferredMoments,
    ) -> None:
        """Reduce a large tensor now, while it is in a cache; its values wait for those of others.

        An array for each would be work at the end of the step.
        """
        if is_usual(tensor, usual):
            self._large += (reduce(address), usual.geometry, seen)
        else:
            seen.found = self._reduce_alone(tensor, usual.axis, False)
            self._given.append(seen)

    def note_gradients(self, noted: UsualGradients) -> None:
        """Let gradients wait of which all is known; large ones are multiplied now."""
        gradients, _, addresses, usual, compute, seen = noted
        multiply = usual.prepared
        if multiply is not None and all(is_usual(one, usual) for one in gradients):
            seen.products = multiply(addresses)
            return
        if multiply is not None or (
            usual.device is not None and not all(map(on_device.is_in_order, gradients))
        ):
            seen.products = compute(*gradients)
            return
        self._gradients.append(noted)
        self._room -= usual.share
        if self._room <= 0 or len(self._gradients) >= MOST_USUAL:
            self.flush()

    def flush(self) -> None:
        """Reduce what waits of which all is known."""
        with self._lock:
            large, values = self._large, len(self._large)
            noted, count = self._noted, len(self._noted)
            gradients, many = self._gradients, len(self._gradients)
            read, first, second = large[:values], noted[:count], gradients[:many]
            # Another thread may add to the end of the lists meanwhile.
            del large[:values], noted[:count], gradients[:many]
            self._room = 1.0
            if read:
                self._put_large(read)
            if first:
                self._reduce_usual(first)
            if second:
                self._multiply_usual(second)

    def _put_large(self, read: list[Any]) -> None:
        """Put the values of large tensors, one after the other, into one batch."""
        values, geometries, seen = (read[field::_READ] for field in range(_READ))
        batch = MomentBatch(np.concatenate(values), layout_of(geometries))
        for place, one in enumerate(seen):
            one.found = batch
            one.place = place
        self._given += seen

    def _reduce_usual(self, noted: list[Any]) -> None:
        self._given += noted[NOTED - 1 :: NOTED]
        for (tensor, _, _, usual, seen), is_changed in self._groups.reduce(noted):
            if is_changed:
                self._note_overwritten(usual.habit)
            else:
                seen.found = self._reduce_alone(tensor, usual.axis, False)

    def _multiply_usual(self, waiting: Sequence[UsualGradients]) -> None:
        for (gradients, _, _, usual, compute, seen), is_changed in self._multiplied.multiply(
            waiting
        ):
            if is_changed:
                self._note_overwritten(usual.habit)
            else:
                seen.products = compute(*gradients)
