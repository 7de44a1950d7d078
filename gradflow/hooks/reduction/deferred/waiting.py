"""What waits to be reduced, and what is known of tensors of its kind."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.batches import Geometry, MomentBatch
from gradflow.hooks.reduction.groups import geometry_of
from gradflow.hooks.reduction.moments import Moments

# How many bytes of small tensors on the CPU wait at most: so few that they are still in a cache
# when they are read.
MOST_SMALL_BYTES = 1 << 22


class Usual(NamedTuple):
    """What the tensors of one kind are in most steps: without gaps in memory.

    Fields:
        habit: that of the kind.
        shape, axis, dtype: theirs.
        geometry: the `groups.geometry_of` shape and axis, in memory order.
        share: of all that may wait, how much one takes, from 0 to 1.
        strides: theirs; None of small ones in main memory, which are contiguous.
        prepared: what reduces one that does not wait, or multiplies such gradients; see `known`.
        device: theirs; None for main memory.
    """

    habit: "Habit"
    shape: torch.Size
    axis: int | None
    dtype: torch.dtype
    geometry: Geometry
    share: float
    strides: tuple[int, ...] | None = None
    prepared: Callable[[Any], np.ndarray] | None = None
    device: torch.device | None = None


@lru_cache(maxsize=4096)
def _shared(shape: torch.Size) -> torch.Size:
    """Return the first shape that was equal to this one."""
    return shape


class Habit:
    """What is known of the tensors of one kind: a layer's outputs, or their gradients.

    Fields:
        name: what they are, for messages.
        tried: whether one has been reduced both at once and with its group.
        at_once: whether they are not to wait.
        shape, axis, geometry: the shape and axis of the last one that was contiguous, and the
            `groups.geometry_of` them.
        usual: what they are in most steps, once one has waited that could; None if they may not.
    """

    __slots__ = ("at_once", "axis", "geometry", "name", "shape", "tried", "usual")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tried = self.at_once = False
        self.shape: torch.Size | None = None
        self.axis: int | None = None
        self.geometry: Geometry | None = None
        self.usual: Usual | None = None

    def wait_no_more(self) -> None:
        """Have them reduced at once from here on."""
        self.at_once = True
        self.usual = None

    def learn(self, shape: torch.Size, axis: int | None) -> Geometry:
        """Return the geometry of a contiguous tensor, and keep it for the next."""
        self.shape, self.axis = shape, axis
        self.geometry = geometry_of(shape, axis)
        return self.geometry


class DeferredMoments:
    """The moments of a tensor that waits to be reduced.

    Fields:
        found: None until the moments are known; then these, or the batch that has them at `place`.
            It stays None if the tensor was overwritten before.
    """

    __slots__ = ("found", "place")

    def __init__(self) -> None:
        self.found: Moments | MomentBatch | None = None
        self.place = 0

    @property
    def moments(self) -> Moments | None:
        """The moments; None until they are known, or if they are missing."""
        found = self.found
        return found.moments(self.place) if isinstance(found, MomentBatch) else found


class WaitingTensor(DeferredMoments):
    """A tensor that waits, with all that its reduction needs.

    Fields:
        tensor, axis, histogram, is_small: as in `groups.TensorToReduce`; the tensor is None once it
            is done.
        geometry: of a small tensor that is contiguous; None for others.
        habit: what is known of such tensors.
        version, address: those of the tensor when it was noted.
    """

    __slots__ = (
        "address",
        "axis",
        "geometry",
        "habit",
        "histogram",
        "is_small",
        "tensor",
        "version",
    )

    def __init__(
        self, tensor: Any, axis: int | None, histogram: bool, habit: Habit, is_small: bool
    ) -> None:
        self.tensor = tensor
        self.axis = axis
        self.histogram = histogram
        self.habit = habit
        self.found = None
        self.place = 0
        self.is_small = is_small
        self.version = tensor._version
        self.address = tensor.data_ptr()
        geometry = None
        if is_small and tensor.is_contiguous():
            shape, geometry = tensor.shape, habit.geometry
            if geometry is None or shape != habit.shape or axis != habit.axis:
                geometry = habit.learn(shape, axis)
            if habit.tried and not habit.at_once and tensor.dtype in cpu.LAYOUTS:
                # The next ones of this kind need not be looked at before their group is due.
                known = habit.shape or shape
                share = tensor.nbytes / MOST_SMALL_BYTES
                habit.usual = Usual(habit, known, axis, tensor.dtype, geometry, share)
        self.geometry = geometry

    @property
    def size(self) -> int:
        """The bytes of the tensor."""
        return int(self.tensor.nbytes)

    def is_unchanged(self) -> bool:
        """Whether the tensor is as it was when it was noted."""
        tensor = self.tensor
        return tensor._version == self.version and tensor.data_ptr() == self.address  # type: ignore[no-any-return]


class DeferredProducts:
    """The `cpu.junction_products` of gradients that wait.

    Fields:
        products: [7], or None as in `DeferredMoments`.
    """

    __slots__ = ("products",)

    def __init__(self) -> None:
        self.products: Tensor | np.ndarray | None = None


class WaitingGradients(DeferredProducts):
    """Gradients that wait, with all that is needed of them.

    Fields:
        whole, skip, branch: the gradients, as in `groups.GradientsToMultiply`, until it is done.
        habit: what is known of such gradients.
        compute: what computes the products of those that cannot go with others.
    """

    __slots__ = ("_seen", "branch", "compute", "habit", "skip", "whole")

    def __init__(
        self,
        gradients: tuple[Tensor, Tensor, Tensor],
        habit: Habit,
        compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> None:
        self.whole, self.skip, self.branch = whole, skip, branch = gradients
        self.habit = habit
        self.compute = compute
        self.products = None
        self._seen = (
            whole.data_ptr(),
            skip.data_ptr(),
            branch.data_ptr(),
            whole._version,
            skip._version,
            branch._version,
        )

    @property
    def size(self) -> int:
        """The bytes of the gradients."""
        return 3 * self.whole.nbytes

    def is_unchanged(self) -> bool:
        """Whether the gradients are as they were when they were noted."""
        whole, skip, branch = self.whole, self.skip, self.branch
        return self._seen == (
            whole.data_ptr(),
            skip.data_ptr(),
            branch.data_ptr(),
            whole._version,
            skip._version,
            branch._version,
        )

    def release(self) -> None:
        """Let go of the gradients."""
        del self.whole, self.skip, self.branch


# Stands for a value that is missing, as one that waits does for one that is not known yet.
MISSING = DeferredMoments()
