"""Tensors of which all is known beforehand: a hook notes them, the rest is done for all together.

Once a layer's outputs, or their gradients, have been reduced in a group, the next ones are usually
of the same shape, dtype and order in memory. The hook compares the shape alone. What else could
differ is compared for a whole group when it is due, in a few calls; a tensor that is not as it
usually is, is then reduced alone. What does not wait is compared at once. Most groups are those of
the step before, tensor by tensor: what is known of such a group is kept.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.batches import Geometry, MomentBatch
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.deferred.same_looks import LooksAgain
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, DeferredProducts, Usual
from gradflow.hooks.reduction.groups import layout_of

# What is noted of a tensor, one after the other in a list: the tensor, its version and address,
# what it is usually, and its moments. A tuple for each would be work for the garbage collector.
NOTED = 5
# The tensor, its version and address when it was noted, what it is usually, and its moments.
UsualTensor = tuple[Tensor, int, int, Usual, DeferredMoments]

# Gradients dL/dx, s and b at a residual addition, their versions and addresses, what such gradients
# are usually, what computes their products if they are not, and these.
UsualGradients = tuple[
    tuple[Tensor, Tensor, Tensor],
    tuple[int, int, int],
    tuple[int, int, int],
    Usual,
    Callable[[Tensor, Tensor, Tensor], Tensor],
    DeferredProducts,
]

_VERSION = attrgetter("_version")


class UsualGroup:
    """A group of tensors that are as usual, of which all is known but their numbers.

    Fields:
        usual: what they are usually.
    """

    __slots__ = ("_looks", "_parts", "usual")

    def __init__(self, usual: list[Usual]) -> None:
        self.usual = usual
        self._looks = LooksAgain()
        kinds: dict[torch.device | torch.dtype, list[int]] = {}
        for place, one in enumerate(usual):
            kinds.setdefault(one.device or one.dtype, []).append(place)
        self._parts: list[_InMainMemory | _OnDevice] = [
            (_OnDevice if isinstance(kind, torch.device) else _InMainMemory)(
                places, [usual[place] for place in places]
            )
            for kind, places in kinds.items()
        ]

    def are_as_noted(
        self, tensors: Sequence[Tensor], versions: list[int], addresses: list[int]
    ) -> bool:
        """Whether all tensors are as usual, and none was overwritten since it was noted."""
        return are_as_noted(self._looks, self.usual, tensors, versions, addresses)

    def reduce(self, addresses: list[int], seen: Sequence[DeferredMoments]) -> Sequence[int]:
        """Put the moments of tensors that are as usual into what waits for them.

        Return the places of those for which that failed.
        """
        failed: list[int] = []
        for part in self._parts:
            chosen = addresses
            if len(part.places) < len(addresses):
                chosen = [addresses[place] for place in part.places]
            found = part.reduce(chosen)
            if found is None:
                failed += part.places
                continue
            for batch, order in found:
                for at, place in enumerate(order):
                    one = seen[part.places[place]]
                    one.found = batch
                    one.place = at
        return failed


class _InMainMemory:
    """The tensors of one dtype of a group, at `places` in it."""

    __slots__ = ("_dtype", "_layout", "places")

    def __init__(self, places: list[int], usual: Sequence[Usual]) -> None:
        self.places = places
        self._dtype = usual[0].dtype
        self._layout = layout_of([one.geometry for one in usual])

    def reduce(self, addresses: list[int]) -> list[tuple[MomentBatch, Sequence[int]]]:
        """Return the moments, and which tensors they are of, in order."""
        loops, layout = cpu.group_loops(self._dtype), self._layout
        table = layout.table.copy()
        table[:, 0] = addresses
        values, count = np.empty(layout.size), len(addresses)
        loops.reduce(table, loops.layout, np.zeros((count, 4, 0), np.int64), values)
        return [(MomentBatch(values, layout), range(count))]


class _OnDevice:
    """The tensors of one device of a group, at `places` in it."""

    __slots__ = ("_geometries", "_group", "places")

    def __init__(self, places: list[int], usual: Sequence[Usual]) -> None:
        self.places = places
        self._geometries = [one.geometry for one in usual]
        assert usual[0].device is not None
        self._group = on_device.DeviceGroup(
            usual[0].device, [(one.dtype, *_axes_of(one.geometry)) for one in usual]
        )

    def reduce(self, addresses: list[int]) -> list[tuple[MomentBatch, Sequence[int]]] | None:
        """Return the moments, and which tensors they are of, in order; None if that failed."""
        found = self._group.reduce(addresses)
        if found is None:
            return None
        return [
            (MomentBatch(values, layout_of([self._geometries[at] for at in order])), order)
            for values, order in found
        ]


def _axes_of(geometry: Geometry) -> tuple[tuple[int, ...], int | None]:
    """Return a shape through which loops walk in the same way, and its channel axis."""
    channels, run = geometry.channels, geometry.run
    if channels == 1:
        return (geometry.elements,), None
    return (geometry.elements // (channels * run), channels, run), 1


class UsualGroups:
    """Reduces groups of tensors that are as usual; keeps what is known of them for later steps."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], UsualGroup] = {}

    def reduce(self, noted: list[Any]) -> list[tuple[UsualTensor, bool]]:
        """Reduce what is `noted`, `NOTED` entries for each tensor.

        Return those that are not as usual and were left out, each with whether it was overwritten.
        """
        tensors, versions, addresses = (noted[field::NOTED] for field in range(3))
        usual, seen = noted[3::NOTED], noted[4::NOTED]
        group = self._group_of(usual)
        columns = zip(tensors, versions, addresses, usual, seen, strict=True)
        if group.are_as_noted(tensors, versions, addresses):
            failed = group.reduce(addresses, seen)
            return (
                [(one, False) for at, one in enumerate(columns) if at in failed] if failed else []
            )
        each = [(one, _change_of(*one[:4])) for one in columns]
        left_out = [(one, is_changed) for one, is_changed in each if is_changed is not None]
        as_usual = [one for one, is_changed in each if is_changed is None]
        if as_usual:
            failed = UsualGroup([one[3] for one in as_usual]).reduce(
                [one[2] for one in as_usual], [one[4] for one in as_usual]
            )
            left_out += [(as_usual[at], False) for at in failed]
        return left_out

    def _group_of(self, usual: list[Usual]) -> UsualGroup:
        key = len(usual), id(usual[0].habit)
        group = self._known.get(key)
        if group is None or group.usual != usual:
            # A model whose groups differ at every step would have more and more.
            if len(self._known) >= _MOST_GROUPS:
                self._known.clear()
            group = self._known[key] = UsualGroup(usual)
        return group


_MOST_GROUPS = 256


class UsualProducts:
    """Multiplies gradients at residual additions that are as usual, many at a time."""

    def __init__(self) -> None:
        # How those of a group looked last, by their number, and what they were usually.
        self._known: dict[int, tuple[list[Usual], LooksAgain]] = {}

    def multiply(self, waiting: Sequence[UsualGradients]) -> list[tuple[UsualGradients, bool]]:
        """Put the products of gradients into what waits for them.

        Return those that are not as usual and were left out, each with whether one was overwritten.
        """
        if self._are_as_noted(waiting):
            _multiply(waiting)
            return []
        odd, as_usual = [], []
        for one in waiting:
            changes = [_change_of(*seen, one[3]) for seen in zip(*one[:3], strict=True)]
            if all(change is None for change in changes):
                as_usual.append(one)
            else:
                odd.append((one, any(changes)))
        _multiply(as_usual)
        return odd

    def _are_as_noted(self, waiting: Sequence[UsualGradients]) -> bool:
        tensors = [gradient for one in waiting for gradient in one[0]]
        usual = [one[3] for one in waiting]
        known, looks = self._known.get(len(usual), ((), None))
        if looks is None or known != usual:
            if len(self._known) >= _MOST_GROUPS:
                self._known.clear()
            looks = LooksAgain()
            self._known[len(usual)] = usual, looks
        return are_as_noted(
            looks,
            [one for one in usual for _ in range(3)],
            tensors,
            [version for one in waiting for version in one[1]],
            [address for one in waiting for address in one[2]],
        )


def are_as_noted(
    looks: LooksAgain,
    usual: Sequence[Usual],
    tensors: Sequence[Tensor],
    versions: list[int],
    addresses: list[int],
) -> bool:
    """Whether all tensors are as usual, and none was overwritten since it was noted.

    `looks` knows how such tensors looked before, and learns it.
    """
    is_same = looks.are_those_of(tensors)
    if not is_same and not all(map(is_usual, tensors, usual)):
        return False
    if (
        list(map(_VERSION, tensors)) != versions
        or list(map(Tensor.data_ptr, tensors)) != addresses
        or any(map(_is_odd_view, filter(Tensor._is_view, tensors)))
    ):
        return False
    if not is_same:
        looks.learn(tensors)
    return True


def _change_of(tensor: Tensor, version: int, address: int, usual: Usual) -> bool | None:
    """Whether a tensor was overwritten since; None if it was not, and is as usual."""
    if (
        tensor._version != version
        or tensor.data_ptr() != address
        or (tensor._is_view() and _is_odd_view(tensor))
    ):
        return True
    return None if is_usual(tensor, usual) else False


def _multiply(waiting: Sequence[UsualGradients]) -> None:
    """Put the products of gradients that are as usual into what waits for them."""
    for dtype in {one[3].dtype for one in waiting if one[3].device is None}:
        group = [one for one in waiting if one[3].dtype is dtype and one[3].device is None]
        products, table = np.empty((len(group), 7)), np.empty((len(group), 4), np.int64)
        table[:, 0] = [one[3].geometry.elements for one in group]
        table[:, 1:] = [one[2] for one in group]
        cpu.group_loops(dtype).multiply(table, products)
        for one, found in zip(group, products, strict=True):
            one[5].products = found
    others = [one for one in waiting if one[3].device is not None]
    for one, on_it in zip(
        others, on_device.multiply_on_device([one[0] for one in others]), strict=True
    ):
        one[5].products = one[4](*one[0]) if on_it is None else on_it


def _is_odd_view(view: Tensor) -> bool:
    # FSDP frees the memory of parameters after use, and fills it again.
    return type(view._base) is not Tensor


def is_usual(tensor: Tensor, usual: Usual) -> bool:
    """Whether a tensor is what it is usually."""
    return (
        type(tensor) is Tensor
        and tensor.dtype is usual.dtype
        and tensor.shape == usual.shape
        and (tensor.is_cpu if usual.device is None else tensor.device == usual.device)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and (tensor.is_contiguous() if usual.strides is None else tensor.stride() == usual.strides)
        and not tensor.is_neg()
    )
