"""Tensors of which all is known beforehand: a hook notes them, the rest is done for all together.

Once a layer's outputs, or their gradients, have been reduced in a group, the next ones are usually
of the same shape, dtype and order in memory. The hook compares the shape alone. What else could
differ is compared for a whole group when it is due, in a few loops that run in C; a tensor that is
not as it usually is, is then reduced alone.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import attrgetter, itemgetter

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.batches import MomentBatch
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, DeferredProducts, Usual
from gradflow.hooks.reduction.groups import layout_of

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

_TENSOR, _USUAL = itemgetter(0), itemgetter(3)
_LOOK = attrgetter("dtype", "is_cpu", "layout", "is_nested", "_version")


def deviating(waiting: Sequence[UsualTensor]) -> list[tuple[UsualTensor, bool]]:
    """Return those that are not as usual, each with whether it was overwritten since."""
    tensors = list(map(_TENSOR, waiting))
    versions, addresses = [one[1] for one in waiting], [one[2] for one in waiting]
    if _are_as_noted(tensors, [one[3].dtype for one in waiting], versions, addresses):
        return []
    each = [(one, _change_of(one[0], one[1], one[2], one[3])) for one in waiting]
    return [(one, is_changed) for one, is_changed in each if is_changed is not None]


def deviating_gradients(waiting: Sequence[UsualGradients]) -> list[tuple[UsualGradients, bool]]:
    """Return those that are not as usual, each with whether one was overwritten since."""
    tensors = [gradient for one in waiting for gradient in one[0]]
    versions = [version for one in waiting for version in one[1]]
    addresses = [address for one in waiting for address in one[2]]
    if _are_as_noted(
        tensors, [one[3].dtype for one in waiting for _ in one[0]], versions, addresses
    ):
        return []
    odd = []
    for one in waiting:
        changes = [_change_of(*seen, one[3]) for seen in zip(*one[:3], strict=True)]
        if any(change is not None for change in changes):
            odd.append((one, any(changes)))
    return odd


def _are_as_noted(
    tensors: Sequence[Tensor],
    dtypes: Sequence[torch.dtype],
    versions: Sequence[int],
    addresses: Sequence[int],
) -> bool:
    expected = zip(dtypes, repeat(True), repeat(torch.strided), repeat(False), versions)
    return (
        list(map(_LOOK, tensors)) == list(expected)
        and list(map(Tensor.data_ptr, tensors)) == addresses
        and all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
        and all(type(one._base) is Tensor for one in tensors if one._is_view())
    )


def _change_of(tensor: Tensor, version: int, address: int, usual: Usual) -> bool | None:
    """Whether a tensor was overwritten since; None if it was not, and is as usual."""
    if (
        tensor._version != version
        or tensor.data_ptr() != address
        # FSDP frees the memory of parameters after use, and fills it again.
        or (tensor._is_view() and type(tensor._base) is not Tensor)
    ):
        return True
    return None if _is_usual(tensor, usual) else False


def reduce_usual(waiting: Sequence[UsualTensor]) -> None:
    """Put the moments of tensors that are as usual into what waits for them."""
    usual = list(map(_USUAL, waiting))
    dtypes = {one.dtype for one in usual}
    for dtype in dtypes:
        group = waiting
        if len(dtypes) > 1:
            group = [one for one in waiting if one[3].dtype is dtype]
        batch = _batch_of(group, dtype)
        for place, one in enumerate(group):
            seen = one[4]
            seen.found = batch
            seen.place = place


def multiply_usual(waiting: Sequence[UsualGradients]) -> None:
    """Put the products of gradients that are as usual into what waits for them."""
    for dtype in {one[3].dtype for one in waiting}:
        group = [one for one in waiting if one[3].dtype is dtype]
        products, table = np.empty((len(group), 7)), np.empty((len(group), 4), np.int64)
        table[:, 0] = [one[3].geometry.elements for one in group]
        table[:, 1:] = [one[2] for one in group]
        cpu.group_loops(dtype).multiply(table, products)
        for one, found in zip(group, products, strict=True):
            one[5].products = found


def _batch_of(group: Sequence[UsualTensor], dtype: torch.dtype) -> MomentBatch:
    loops = cpu.group_loops(dtype)
    layout = layout_of([one[3].geometry for one in group])
    table = layout.table.copy()
    table[:, 0] = [one[2] for one in group]
    values = np.empty(layout.size)
    loops.reduce(table, loops.layout, np.zeros((len(group), 4, 0), np.int64), values)
    return MomentBatch(values, layout)


def _is_usual(tensor: Tensor, usual: Usual) -> bool:
    return (
        tensor.dtype is usual.dtype
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )
