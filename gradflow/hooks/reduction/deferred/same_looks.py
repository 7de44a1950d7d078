"""Compares how many tensors look in one call: class, dtype, device, layout, sizes and strides.

It is the check by which torch's compiler tells whether compiled code is valid for its inputs: a
tensor takes it a twentieth of the time that its properties take one by one. It tells apart all
that our loops depend on, also negated views, sparse and nested tensors, tensors of a `torch.func`
transform and subclasses; it may also say of equal ones that they differ, so whoever asks must be
able to look more closely. That is tested before it is used, and it is not used where it fails.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from operator import attrgetter, eq
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_LOOK = attrgetter("dtype", "is_cpu", "shape", "layout")
PLAIN = frozenset((Tensor, Parameter))
# Takes tensors, as many as it was made of.
Check = Callable[..., bool]


def check_of(tensors: Sequence[Tensor]) -> Check | None:
    """Return what tells whether other tensors look as these; None if nothing does.

    It returns True only if all of them do, and False also if a tensor is there twice, or if the
    mode differs in which it is called (gradients enabled, autocast). It keeps no tensor.
    """
    if not tensors or not set(map(type, tensors)) <= PLAIN:
        return None
    guards = _guards()
    return None if guards is None else _made_of(guards, tensors)


class LooksAgain:
    """Tells whether tensors look as those of the step before, which were looked at closely."""

    __slots__ = ("_check", "_count", "_left", "_order")

    def __init__(self) -> None:
        self._check: Check | None = None
        self._count = 0
        self._left = _MOST_CHECKS
        # The number of each tensor among the different ones, if one is there twice.
        self._order: list[int] | None = None

    def are_those_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether `tensors` look as those last learnt; False if that is not known."""
        check = self._check
        if check is None or len(tensors) != self._count:
            return False
        if self._order is None:
            return check(*tensors)
        different, order = _in_order(tensors)
        return order == self._order and check(*different)

    def learn(self, tensors: Sequence[Tensor]) -> None:
        """Take `tensors` for the example; does nothing after a few times, as it takes long."""
        if not self._left:
            return
        self._left -= 1
        different, order = _in_order(tensors)
        self._check, self._count = check_of(different), len(tensors)
        self._order = order if len(different) < len(tensors) else None

    def learn_no_more(self) -> None:
        """Keep no example: of such tensors, none tells enough."""
        self._left = 0


def _in_order(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], list[int]]:
    """The different ones of the tensors, and the number of each tensor among them."""
    different = dict(zip(dict.fromkeys(tensors), count(), strict=False))
    return list(different), list(map(different.__getitem__, tensors))


class Looks:
    """How tensors look: what the layout of a table of them depends on.

    `are_plain` says whether each is real and dense, and all of what it stands for. They are
    compared without a lasting object for each tensor: thousands of these at every step would set
    Python's garbage collector going.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.kinds = list(map(type, tensors))
        self.looks = list(map(_LOOK, tensors))
        self.strides = list(map(_stride_of, tensors))
        self.negatives = list(map(Tensor.is_neg, tensors))
        self.are_plain = (
            set(self.kinds) <= PLAIN
            and None not in self.strides
            and not any(dtype.is_complex for dtype, *_ in self.looks)
            and all(layout is torch.strided for *_, layout in self.looks)
        )
        self._again = LooksAgain()
        if not self.are_plain:
            self._again.learn_no_more()

    def are_those_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether `tensors` look like this."""
        if self._again.are_those_of(tensors):
            return True
        if not self._are_alike(tensors):
            return False
        self._again.learn(tensors)
        return True

    def _are_alike(self, tensors: Sequence[Tensor]) -> bool:
        if list(map(type, tensors)) != self.kinds:
            return False
        strides = map(_stride_of if None in self.strides else Tensor.stride, tensors)
        try:
            return (
                all(map(eq, map(_LOOK, tensors), self.looks))
                and all(map(eq, strides, self.strides))
                and list(map(Tensor.is_neg, tensors)) == self.negatives
            )
        except RuntimeError:  # one has no strides any more
            return False


def _stride_of(tensor: Tensor) -> tuple[int, ...] | None:
    """The strides of a tensor; None if it has none, as a sparse or nested one."""
    try:
        return tensor.stride()
    except RuntimeError:
        return None


# An example may be of use in one mode of torch alone.
_MOST_CHECKS = 3


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
