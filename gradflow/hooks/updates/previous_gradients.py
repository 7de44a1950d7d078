"""Keeps the gradients of the previous step, for their cosine with those of the next one.

A gradient is kept as a copy, or as the tensor itself, which saves the copy. The tensor itself is
enough if the user releases it (`zero_grad(set_to_none=True)`, the default) and the optimizer does
not change it. In the first steps gradients are copied, and both conditions are checked. Later, an
uncopied gradient must still have its recorded norm when it is used. If its norm has changed, that
one cosine is missing, and gradients are copied from then on.
"""

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradflow.hooks.processes.tensors import is_partial, local_part, sums_of_partial
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.fused import safe_norm


class GradientMeasures(NamedTuple):
    """A gradient's norm, its cosine with the previous gradient, and the norm of that one."""

    norm: Tensor | float
    cosine: Tensor | float | None
    previous_norm: Tensor | float | None


# Sums of the same squares in float64, in different orders, differ by less than this, relatively.
_NORM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class _KeptGradient:
    """A gradient of the previous step, its norm, and whether the tensor is our own copy."""

    tensor: Tensor
    norm: Tensor | float
    is_copy: bool


class PreviousGradients:
    """Measures gradients when an optimizer's step begins, and keeps them for the next step."""

    def __init__(self) -> None:
        self._kept: dict[str, _KeptGradient] = {}
        self._buffers: dict[str, Tensor] = {}
        # None until the first steps have shown whether gradients can be kept without a copy.
        self._may_skip_copy: bool | None = None
        self._watched: dict[str, weakref.ref[Tensor]] = {}

    def begin_step(self, parameters: Mapping[str, Tensor]) -> None:
        """Before the first gradients of a step: let go of those of parameters now frozen."""
        self._kept = {name: one for name, one in self._kept.items() if name in parameters}
        self._decide_on_copies(parameters)

    def let_go(self) -> None:
        """In place of `begin_step` and `measure`, if no gradient is compared or kept."""
        self._kept = {}
        self._watched = {}

    def measure(
        self, parameters: Mapping[str, Tensor], *, compare: bool, keep: bool
    ) -> dict[str, GradientMeasures]:
        """Measure the gradient of each parameter; the result is keyed by name.

        `compare` asks for cosines with the kept gradients; `keep` keeps the present ones, for the
        cosines of the next call.
        """
        kept = {name: self._kept.pop(name) for name in parameters if name in self._kept}
        measured: dict[str, GradientMeasures] = {}
        if not compare and not keep:
            return measured
        given = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        summed = sums_of_partial(given)
        for name, parameter in parameters.items():
            if parameter.grad is None:
                continue
            gradient = summed[name] if name in summed else dense_gradient(parameter.grad)
            before = kept.get(name) if compare else None
            if before is not None and not are_alike(gradient, before.tensor):
                before = None  # the parameter was converted or moved since
            norm, cosine = self._compare(gradient, before)
            previous_norm = None if before is None else before.norm
            measured[name] = GradientMeasures(norm, cosine, previous_norm)
            if keep:
                # A later check compares norms. Only a norm that is a float needs no wait.
                can_skip_copy = (
                    isinstance(norm, float)
                    and not parameter.grad._is_view()
                    and not parameter.grad.is_sparse
                    and not is_partial(parameter.grad)
                )
                self._kept[name] = self._keep(name, gradient, norm, can_skip_copy)
                if can_skip_copy and self._may_skip_copy is None:
                    self._watched[name] = weakref.ref(parameter.grad)
        return measured

    def check_after_step(self, parameters: Mapping[str, Tensor]) -> None:
        """After the optimizer's first step, check whether it changed the gradients."""
        if self._may_skip_copy is not None or not self._watched:
            return
        for name in self._watched.keys() & parameters.keys():
            gradient = parameters[name].grad
            if gradient is None or not torch.equal(local_part(gradient), self._kept[name].tensor):
                self._may_skip_copy = False
                return

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the kept gradients, their norms, and whether copies can be skipped."""
        return {
            "gradients": {name: kept.tensor.clone() for name, kept in self._kept.items()},
            "norms": {name: kept.norm for name, kept in self._kept.items()},
            "may_refer": self._may_skip_copy,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the gradients of `state`, on the devices where they are."""
        norms = state["norms"]
        self._buffers = dict(state["gradients"])
        self._kept = {
            name: _KeptGradient(tensor, norms[name], True) for name, tensor in self._buffers.items()
        }
        self._may_skip_copy = state["may_refer"]
        self._watched = {}

    def _decide_on_copies(self, parameters: Mapping[str, Tensor]) -> None:
        if self._may_skip_copy is None and self._watched:
            self._may_skip_copy = all(
                parameters[name].grad is not seen()
                for name, seen in self._watched.items()
                if name in parameters
            )
        if self._may_skip_copy is not None:
            self._watched = {}
        if self._may_skip_copy:
            self._buffers = {}

    def _compare(
        self, gradient: Tensor, kept: _KeptGradient | None
    ) -> tuple[Tensor | float, Tensor | float | None]:
        if kept is None:
            return norm_of(gradient), None
        products = cpu.inner_products(gradient, kept.tensor)
        if products is None:
            here = safe_norm(gradient)
            product = torch.dot(gradient.flatten(), kept.tensor.flatten())
            # A zero gradient has no direction: 0 / 0 gives nan.
            return here, product / (here * kept.norm)
        own, inner, before = products
        norm = math.sqrt(own)
        if not kept.is_copy and not self._is_unchanged(gradient, kept, math.sqrt(before)):
            self._may_skip_copy = False
            return norm, None
        scale = norm * math.sqrt(before)
        return norm, inner / scale if scale else math.nan

    def _is_unchanged(self, gradient: Tensor, kept: _KeptGradient, norm: float) -> bool:
        if kept.tensor.data_ptr() == gradient.data_ptr():
            return False
        before = float(kept.norm)
        return abs(norm - before) <= _NORM_TOLERANCE * before or not math.isfinite(before)

    def _keep(
        self, name: str, gradient: Tensor, norm: Tensor | float, can_skip_copy: bool
    ) -> _KeptGradient:
        if can_skip_copy and self._may_skip_copy:
            return _KeptGradient(gradient, norm, False)
        # The buffers are reused: allocating new ones costs three times the copy.
        if name in self._buffers and are_alike(gradient, self._buffers[name]):
            self._buffers[name].copy_(gradient)
        else:
            self._buffers[name] = gradient.clone()
        return _KeptGradient(self._buffers[name], norm, True)


def dense_gradient(gradient: Tensor) -> Tensor:
    """Return the part of a parameter's gradient that this process holds, as a dense tensor."""
    part = local_part(gradient.detach())
    return part.to_dense() if part.is_sparse else part


def norm_of(x: Tensor) -> Tensor | float:
    """Return the L2 norm of a tensor: a float in main memory, else a 0-d tensor on its device."""
    square = cpu.square_sum(x)
    return safe_norm(x) if square is None else math.sqrt(square)


def are_alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same type, shape and device."""
    return (first.dtype, first.shape, first.device) == (second.dtype, second.shape, second.device)
