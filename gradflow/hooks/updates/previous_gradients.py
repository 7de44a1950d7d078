"""Keeps the gradients of the previous step, for their cosine with those of the next one.

A gradient is kept as a copy, or as the tensor itself, which saves the copy. The tensor itself is
enough if the user releases it (`zero_grad(set_to_none=True)`, the default) and the optimizer does
not change it. In the first steps gradients are copied, and both conditions are checked. Later, an
uncopied gradient must still have its recorded norm when it is used. If its norm has changed, that
one cosine is missing, and gradients are copied from then on.
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.parameter_table import Numbers
from gradflow.hooks.processes.tensors import is_partial, local_part, sums_of_partial
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.updates import grouped
from gradflow.hooks.updates.many import (
    Loop,
    are_alike,
    dense_gradient,
    is_plain,
    norms,
)

# Sums of the same squares in float64, in different orders, differ by less than this, relatively.
_NORM_TOLERANCE = 1e-9
_GRADIENT = attrgetter("grad")


@dataclass(frozen=True)
class GradientMeasures:
    """The norms of gradients, their cosines with the previous ones, and the norms of those.

    By the `names` of their parameters; unknown where there is no gradient to compare with.
    """

    names: list[str]
    norms: Numbers
    cosines: Numbers
    previous_norms: Numbers


class _KeptGradient(NamedTuple):
    """A gradient of the previous step, its norm, and whether the tensor is our own copy."""

    tensor: Tensor
    norm: Tensor | float
    is_copy: bool


class PreviousGradients:
    """Measures gradients when an optimizer's step begins, and keeps them for the next step.

    With `in_turns`, the gradients kept at one step are not those kept at the next, and the memory
    of their copies is not kept either.
    """

    def __init__(self, *, in_turns: bool = False) -> None:
        self._in_turns = in_turns
        self._kept: dict[str, _KeptGradient] = {}
        self._buffers: dict[str, Tensor] = {}
        # None until the first steps have shown whether gradients can be kept without a copy.
        self._may_skip_copy: bool | None = None
        self._watched: dict[str, weakref.ref[Tensor]] = {}
        self._norms, self._products = Loop("square_sum"), Loop("inner_products")
        self._copying = Loop("copy_and_square_sum")

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
    ) -> GradientMeasures:
        """Measure the gradients of `parameters`.

        `compare` asks for cosines with the kept gradients; `keep` keeps the present ones, for the
        cosines of the next call.
        """
        kept = {name: self._kept.pop(name) for name in parameters if name in self._kept}
        if not compare and not keep:
            return GradientMeasures([], Numbers(0), Numbers(0), Numbers(0))
        given = {
            name: gradient
            for name, gradient in zip(parameters, map(_GRADIENT, parameters.values()), strict=True)
            if gradient is not None
        }
        names, gradients = list(given), _dense(given)
        before = [kept.get(name) if compare else None for name in names]
        found = self._compare(names, gradients, before)
        if keep:
            self._keep(names, gradients, list(given.values()), found.norms)
        return found

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
        self,
        names: list[str],
        gradients: Sequence[Tensor],
        before: Sequence[_KeptGradient | None],
    ) -> GradientMeasures:
        found = GradientMeasures(names, *(Numbers(len(names)) for _ in range(3)))
        pairs = _Pairs(
            [place for place, one in enumerate(before) if one is not None],
            [gradient for gradient, one in zip(gradients, before, strict=True) if one is not None],
            [one for one in before if one is not None],
        )
        sums, read, rest = self._products(pairs.gradients, [one.tensor for one in pairs.kept])
        if len(read):
            self._put_sums(found, pairs.at(read.tolist()), sums[read])
        # The parameter of the others was converted or moved since.
        alike = [at for at in rest if are_alike(pairs.gradients[at], pairs.kept[at].tensor)]
        if alike:
            self._put_rest(found, pairs.at(alike))
        others = np.flatnonzero(~found.norms.known)
        if len(others):
            tensors = (
                gradients
                if len(others) == len(names)
                else [gradients[at] for at in others.tolist()]
            )
            found.norms.put(others, norms(self._norms, tensors, Tensor.detach))
        return found

    def _put_sums(self, found: GradientMeasures, pairs: "_Pairs", sums: np.ndarray) -> None:
        """Take up <g, g>, <g, p> and <p, p> of each pair of gradient and previous gradient."""
        places = np.array(pairs.places)
        own, before = np.sqrt(sums[:, 0]), np.sqrt(sums[:, 2])
        known = np.array([float(one.norm) for one in pairs.kept])
        found.norms.put_host(places, own)
        found.previous_norms.put_host(places, known)
        changed = _have_changed(pairs, before, known)
        if changed.any():
            self._may_skip_copy = False
        scale = own * before
        with np.errstate(invalid="ignore"):
            cosines = np.divide(
                sums[:, 1], scale, out=np.full(len(scale), np.nan), where=scale != 0
            )
        found.cosines.put_host(places[~changed], cosines[~changed])

    def _put_rest(self, found: GradientMeasures, pairs: "_Pairs") -> None:
        """Compare the pairs that the loop leaves out."""
        groups, alone = grouped.groups_of(pairs.gradients)
        for group in groups:
            chosen = pairs.at(group)
            places, tensors = np.array(chosen.places), [one.tensor for one in chosen.kept]
            here = grouped.norms(chosen.gradients)
            before = torch.stack([torch.as_tensor(one.norm).to(here) for one in chosen.kept])
            # A zero gradient has no direction: 0 / 0 gives nan.
            cosines = grouped.products(chosen.gradients, tensors) / (here * before)
            found.norms.put_on_device(places, here)
            found.previous_norms.put_on_device(places, before)
            found.cosines.put_on_device(places, cosines)
        for index in alone:
            one = pairs.at([index])
            gradient, kept = one.gradients[0].detach(), one.kept[0]
            products = cpu.inner_products(gradient, kept.tensor)
            if products is not None:
                self._put_sums(found, one, np.array([products]))
                continue
            here = safe_norm(gradient)
            product = torch.dot(gradient.flatten(), kept.tensor.flatten())
            found.norms.put_each(one.places, [here])
            found.previous_norms.put_each(one.places, [kept.norm])
            found.cosines.put_each(one.places, [product / (here * kept.norm)])

    def _keep(
        self,
        names: Sequence[str],
        gradients: Sequence[Tensor],
        originals: Sequence[Tensor],
        norms: Numbers,
    ) -> None:
        """Keep the gradients for the next step; `originals` are what the parameters have."""
        found = norms.each()
        # A later check compares norms. Only a norm that is a float needs no wait.
        can_skip = [
            isinstance(norm, float) and not is_view and _is_all(one)
            for norm, is_view, one in zip(
                found, map(Tensor._is_view, originals), originals, strict=True
            )
        ]
        if self._may_skip_copy is None:
            self._watched |= {
                name: weakref.ref(one)
                for name, one, can in zip(names, originals, can_skip, strict=True)
                if can
            }
        if self._may_skip_copy and all(can_skip):
            copies, tensors = [], list(map(Tensor.detach, gradients))
        else:
            copies = [
                place for place, can in enumerate(can_skip) if not (can and self._may_skip_copy)
            ]
            tensors = [one.detach() for one in gradients]
            self._copy(names, tensors, copies)
        is_copy = [False] * len(names)
        for place in copies:
            is_copy[place] = True
        kept = map(_KeptGradient._make, zip(tensors, found, is_copy, strict=True))
        self._kept.update(zip(names, kept, strict=True))
        if self._in_turns:
            self._buffers = {names[at]: self._buffers[names[at]] for at in copies}

    def _copy(self, names: Sequence[str], tensors: list[Tensor], places: Sequence[int]) -> None:
        """Put copies of the tensors at `places` in their stead.

        The buffers are used again: allocating new ones costs three times the copy.
        """
        chosen = [tensors[at] for at in places]
        for at, tensor in zip(places, chosen, strict=True):
            buffer = self._buffers.get(names[at])
            if buffer is None or not are_alike(tensor, buffer):
                self._buffers[names[at]] = torch.empty_like(tensor)
        buffers = [self._buffers[names[at]] for at in places]
        _, _, rest = self._copying(chosen, buffers)
        groups, alone = grouped.groups_of([chosen[at] for at in rest])
        for group in groups:
            inside = [rest[index] for index in group]
            grouped.copy([buffers[at] for at in inside], [chosen[at] for at in inside])
        for index in alone:
            buffers[rest[index]].copy_(chosen[rest[index]])
        for at, buffer in zip(places, buffers, strict=True):
            tensors[at] = buffer


class _Pairs(NamedTuple):
    """Gradients with what was kept of the step before, and their places among all gradients."""

    places: list[int]
    gradients: list[Tensor]
    kept: list[_KeptGradient]

    def at(self, chosen: Sequence[int]) -> "_Pairs":
        """The pairs at the places `chosen` among these."""
        if len(chosen) == len(self.places):
            return self
        places, gradients, kept = ([one[index] for index in chosen] for one in self)
        return _Pairs(places, gradients, kept)  # type: ignore[arg-type]


def _have_changed(pairs: _Pairs, norms: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which kept gradients are no copies, and were changed since they were kept: [n].

    `norms` are those that they have now, `known` those that they had.
    """
    are_copies = np.array([one.is_copy for one in pairs.kept])
    if are_copies.all():
        return np.zeros(len(known), dtype=bool)
    count = len(known)
    here = np.fromiter(map(Tensor.data_ptr, pairs.gradients), np.int64, count)
    there = np.fromiter((one.tensor.data_ptr() for one in pairs.kept), np.int64, count)
    with np.errstate(invalid="ignore"):
        same = (np.abs(norms - known) <= _NORM_TOLERANCE * known) | ~np.isfinite(known)
    changed: np.ndarray = ~are_copies & ((here == there) | ~same)
    return changed


def _dense(given: Mapping[str, Tensor]) -> list[Tensor]:
    """Return what this process holds of each gradient, as a dense tensor; all must call this."""
    summed = sums_of_partial({name: one for name, one in given.items() if type(one) is not Tensor})
    return [
        one if is_plain(one) else summed[name] if name in summed else dense_gradient(one)
        for name, one in given.items()
    ]


def _is_all(gradient: Tensor) -> bool:
    """Whether a gradient is a dense tensor, and its sum over the processes is not pending."""
    return not gradient.is_sparse and (type(gradient) is Tensor or not is_partial(gradient))
