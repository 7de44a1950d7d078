"""Compares how many tensors look in one call: class, dtype, device, layout, sizes and strides.

It is the check by which torch's compiler tells whether compiled code is valid for its inputs: a
tensor takes it a twentieth of the time that its properties take one by one. It tells apart all
that our loops depend on, also negated views, sparse and nested tensors, tensors of a `torch.func`
transform and subclasses; it may also say of equal ones that they differ, so whoever asks must be
able to look more closely. That is tested before it is used, and it is not used where it fails.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = frozenset((Tensor, Parameter))
# Takes tensors, as many as it was made of.
Check = Callable[..., bool]


def check_of(tensors: Sequence[Tensor]) -> Check | None:
    """Return what tells whether other tensors look as these; None if nothing does.

    It returns True only if all of them do, and False also if a tensor is there twice, or if the
    mode differs in which it is called (gradients enabled, autocast). It keeps no tensor.
    """
    if not tensors or not set(map(type, tensors)) <= _PLAIN:
        return None
    guards = _guards()
    return None if guards is None else _made_of(guards, tensors)


def _made_of(guards: Any, tensors: Sequence[Tensor]) -> Check | None:
    try:
        check: Check = guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
        return check if check(*tensors) else None
    except Exception:  # a tensor without sizes, or another version of torch
        return None


@cache
def _guards() -> Any:
    """What makes the check, if it tells apart what it must; None if not."""
    try:
        from torch._C._dynamo.guards import TensorGuards  # noqa: PLC0415 - not public
    except ImportError:
        return None
    return TensorGuards if _tells_apart(TensorGuards) else None


@torch.no_grad()
def _tells_apart(guards: Any) -> bool:
    x = torch.ones(4, 3)
    check = _made_of(guards, [x])
    if check is None or not check(torch.zeros(4, 3)):
        return False
    with torch.inference_mode():
        inference = torch.ones(4, 3)
    others: list[Tensor] = [
        torch.ones(3, 4),
        torch.ones(12),
        torch.ones(3, 4).t(),
        torch.ones(4, 6)[:, ::2],
        torch.ones(4, 3, dtype=torch.float64),
        torch.ones(4, 3, dtype=torch.int32),
        torch.ones(4, 3, device="meta"),
        torch._neg_view(x),
        x.to_sparse(),
        Parameter(x),
        inference,
    ]
    try:
        return not any(map(check, others))
    except Exception:
        return False
