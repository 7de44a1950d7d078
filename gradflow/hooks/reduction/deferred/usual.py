"""Tensors of which all is known beforehand: a hook notes them, the rest is done for all together.

Once a layer's outputs, or their gradients, have been reduced in a group, the next ones are usually
of the same shape, dtype and order in memory. The hook compares the shape alone. What else could
differ is compared for a whole group when it is due, in a few loops that run in C; a tensor that is
not as it usually is, is then reduced alone.
"""

from collections.abc import Sequence
from operator import attrgetter, itemgetter

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.batches import MomentBatch
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, Usual
from gradflow.hooks.reduction.groups import layout_of

# The tensor, its version and address when it was noted, what it is usually, and its moments.
UsualTensor = tuple[Tensor, int, int, Usual, DeferredMoments]

_TENSOR, _USUAL = itemgetter(0), itemgetter(3)
_LOOK = attrgetter("dtype", "is_cpu", "layout", "is_nested", "_version")


def deviating(waiting: Sequence[UsualTensor]) -> list[tuple[UsualTensor, bool]]:
    """Return those that are not as usual, each with whether it was overwritten since."""
    tensors = list(map(_TENSOR, waiting))
    expected = [(one[3].dtype, True, torch.strided, False, one[1]) for one in waiting]
    addresses = list(map(Tensor.data_ptr, tensors))
    if (
        list(map(_LOOK, tensors)) == expected
        and addresses == [one[2] for one in waiting]
        and all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
        and all(type(one._base) is Tensor for one in tensors if one._is_view())
    ):
        return []
    odd = []
    for one in waiting:
        tensor, version, address, usual, _ = one
        is_changed = (
            tensor._version != version
            or tensor.data_ptr() != address
            # FSDP frees the memory of parameters after use, and fills it again.
            or (tensor._is_view() and type(tensor._base) is not Tensor)
        )
        if is_changed or not _is_usual(tensor, usual):
            odd.append((one, is_changed))
    return odd


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
