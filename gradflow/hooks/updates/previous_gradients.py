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
    Looks,
    Loop,
    Seen,
    address_of,
    are_alike,
    dense_gradient,
    norms,
)

# Sums of the same squares in float64, in different orders, differ by less than this, relatively.
_NORM_TOLERANCE = 1e-9
_GRADIENT = attrgetter("grad")
_REQUIRES_GRAD = attrgetter("requires_grad")


@dataclass(frozen=True)
class GradientMeasures:
    """The norms of gradients, their cosines with the previous ones, and the norms of those.

    By the `names` of their parameters; unknown where there is no gradient to compare with.
    """

    names: Sequence[str]
    norms: Numbers
    cosines: Numbers
    previous_norms: Numbers


class _KeptGradient(NamedTuple):
    """A gradient of the previous step, its norm, whether the tensor is our own copy, and where."""

    tensor: Tensor
    norm: Tensor | float
    is_copy: bool
    address: int


@dataclass(frozen=True)
class _Batch:
    """Gradients that were kept together: those of one optimizer.

    Fields:
        names: of their parameters.
        seen: the tensors as they were then.
        norms: theirs.
        are_copies: [n] which of the tensors are our own copies.
    """

    names: Sequence[str]
    seen: Seen
    norms: Numbers
    are_copies: np.ndarray

    def each(self) -> dict[str, _KeptGradient]:
        """The gradients one by one, by name."""
        columns = self.norms.each(), self.are_copies.tolist(), self.seen.addresses().tolist()
        kept = zip(self.seen.tensors, *columns, strict=True)
        return dict(zip(self.names, map(_KeptGradient._make, kept), strict=True))


def _batch_of(kept: Mapping[str, _KeptGradient]) -> _Batch:
    norms = Numbers(len(kept))
    norms.put_each(range(len(kept)), [one.norm for one in kept.values()])
    return _Batch(
        list(kept),
        Seen(
            [one.tensor for one in kept.values()],
            addresses=np.array([one.address for one in kept.values()], np.int64),
        ),
        norms,
        np.array([one.is_copy for one in kept.values()], dtype=bool),
    )


class PreviousGradients:
    """Measures gradients when an optimizer's step begins, and keeps them for the next step.

    With `in_turns`, the gradients kept at one step are not those kept at the next, and the memory
    of their copies is not kept either.
    """

    def __init__(self, *, in_turns: bool = False) -> None:
        self._in_turns = in_turns
        self._batches: list[_Batch] = []
        self._buffers: dict[str, Tensor] = {}
        # None until the first steps have shown whether gradients can be kept without a copy.
        self._may_skip_copy: bool | None = None
        self._watched: dict[str, weakref.ref[Tensor]] = {}
        self._looks: Looks | None = None
        self._norms, self._products = Loop("square_sum"), Loop("inner_products")
        self._copying = Loop("copy_and_square_sum")

    def begin_step(self, parameters: Mapping[str, Tensor]) -> None:
        """Before the first gradients of a step: let go of those of parameters now frozen."""
        if not all(all(map(parameters.__contains__, batch.names)) for batch in self._batches):
            kept = {name: one for name, one in self._each().items() if name in parameters}
            self._batches = [_batch_of(kept)]
        self._decide_on_copies(parameters)

    def let_go(self) -> None:
        """In place of `begin_step` and `measure`, if no gradient is compared or kept."""
        self._batches = []
        self._watched = {}

    def measure(
        self, parameters: Mapping[str, Tensor], *, compare: bool, keep: bool
    ) -> GradientMeasures:
        """Measure the gradients of `parameters`.

        `compare` asks for cosines with the kept gradients; `keep` keeps the present ones, for the
        cosines of the next call.
        """
        if not compare and not keep:
            self._take(list(parameters))
            return GradientMeasures([], Numbers(0), Numbers(0), Numbers(0))
        names: Sequence[str] = list(parameters)
        gradients = list(map(_GRADIENT, parameters.values()))
        if type(None) in set(map(type, gradients)):
            pairs = [pair for pair in zip(names, gradients, strict=True) if pair[1] is not None]
            self._take([name for name in names if parameters[name].grad is None])
            names, gradients = [name for name, _ in pairs], [one for _, one in pairs]
        given = _Given(names, gradients, self._looks)
        self._looks = given.seen.looks
        before = self._take(names)
        found = self._compare(given, before if compare else None)
        if keep:
            self._keep(given, found.norms)
        return found

    def check_after_step(self, parameters: Mapping[str, Tensor]) -> None:
        """After the optimizer's first step, check whether it changed the gradients."""
        if self._may_skip_copy is not None or not self._watched:
            return
        kept = self._each()
        for name in self._watched.keys() & parameters.keys():
            gradient = parameters[name].grad
            if gradient is None or not torch.equal(local_part(gradient), kept[name].tensor):
                self._may_skip_copy = False
                return

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the kept gradients, their norms, and whether copies can be skipped."""
        return {
            "gradients": {name: kept.tensor.clone() for name, kept in self._each().items()},
            "norms": {name: kept.norm for name, kept in self._each().items()},
            "may_refer": self._may_skip_copy,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the gradients of `state`, on the devices where they are."""
        norms = state["norms"]
        self._buffers = dict(state["gradients"])
        kept = {
            name: _KeptGradient(tensor, norms[name], True, address_of(tensor))
            for name, tensor in self._buffers.items()
        }
        self._batches = [_batch_of(kept)]
        self._may_skip_copy = state["may_refer"]
        self._watched = {}

    def _decide_on_copies(self, parameters: Mapping[str, Tensor]) -> None:
        if self._may_skip_copy is None and self._watched:
            self._may_skip_copy = all(
                parameters[name].grad is None or parameters[name].grad is not seen()
                for name, seen in self._watched.items()
                if name in parameters
            )
        if self._may_skip_copy is not None:
            self._watched = {}
        if self._may_skip_copy:
            self._buffers = {}

    def _each(self) -> dict[str, _KeptGradient]:
        return {name: one for batch in self._batches for name, one in batch.each().items()}

    def _take(self, names: Sequence[str]) -> _Batch | None:
        """Take what is kept of `names`: as it was kept, if these are the names of a batch."""
        for place, batch in enumerate(self._batches):
            if len(batch.names) == len(names) and list(batch.names) == list(names):
                return self._batches.pop(place)
        kept = self._each()
        taken = {name: kept.pop(name) for name in names if name in kept}
        if not taken:
            return None
        self._batches = [_batch_of(kept)] if kept else []
        return _batch_of(taken)

    def _compare(self, given: "_Given", before: _Batch | None) -> GradientMeasures:
        names = given.names
        found = GradientMeasures(names, *(Numbers(len(names)) for _ in range(3)))
        if before is not None:
            places = given.places(before.names)
            self._compare_pairs(found, given, places, before)
        others = np.flatnonzero(~found.norms.known)
        if len(others) == len(names):
            found.norms.put(others, norms(self._norms, given.seen, given.dense_at))
        elif len(others):
            tensors = [given.dense_at(at) for at in others.tolist()]
            alone = norms(Loop("square_sum"), Seen(tensors), tensors.__getitem__)
            found.norms.put(others, alone)
        return found

    def _compare_pairs(
        self, found: GradientMeasures, given: "_Given", places: np.ndarray, before: _Batch
    ) -> None:
        """Compare the gradients at `places` with those kept of the same parameters."""
        is_all = len(places) == len(given.names)
        seen = given.seen if is_all else Seen([given.tensors[at] for at in places.tolist()])
        moved = before.seen.have_moved()
        if moved.any():
            # Somebody has put other memory into a tensor that was kept.
            self._may_skip_copy = False
            still = np.flatnonzero(~moved)
            kept = list(before.each().items())
            before = _batch_of(dict(kept[at] for at in still.tolist()))
            self._compare_pairs(found, given, places[still], before)
            return
        sums, read, rest = self._products(seen, before.seen)
        if len(read):
            self._put_sums(found, places, seen, before, read, sums)
        if not rest:
            return
        each = list(before.each().values())
        pairs = [(places[at], given.dense_at(places[at]), each[at]) for at in rest]
        # The parameter of the others was converted or moved since.
        self._put_rest(found, [pair for pair in pairs if are_alike(pair[1], pair[2].tensor)])

    def _put_sums(
        self,
        found: GradientMeasures,
        places: np.ndarray,
        seen: Seen,
        before: _Batch,
        read: np.ndarray,
        sums: np.ndarray,
    ) -> None:
        """Take up <g, g>, <g, p> and <p, p> of the pairs in `read`: gradient, previous gradient."""
        places, sums = places[read], sums[read]
        own, previous = np.sqrt(sums[:, 0]), np.sqrt(sums[:, 2])
        known = before.norms.host[read]
        if before.norms.pieces:
            each = before.norms.each()
            known = np.array([float(each[at] or 0.0) for at in read.tolist()])
        found.norms.put_host(places, own)
        found.previous_norms.put_host(places, known)
        here, there = seen.addresses()[read], before.seen.addresses()[read]
        with np.errstate(invalid="ignore"):
            same = (np.abs(previous - known) <= _NORM_TOLERANCE * known) | ~np.isfinite(known)
            scale = own * previous
            cosines = np.where(scale != 0, sums[:, 1] / np.where(scale != 0, scale, 1), np.nan)
        changed = ~before.are_copies[read] & ((here == there) | ~same)
        if changed.any():
            self._may_skip_copy = False
        found.cosines.put_host(places[~changed], cosines[~changed])

    def _put_rest(
        self, found: GradientMeasures, pairs: Sequence[tuple[int, Tensor, _KeptGradient]]
    ) -> None:
        """Compare the pairs that the loop leaves out, given with the places of the gradients."""
        groups, alone = grouped.groups_of([gradient for _, gradient, _ in pairs])
        for group in groups:
            chosen, gradients, kept = zip(*(pairs[index] for index in group), strict=True)
            places = np.array(chosen)
            here = grouped.norms(gradients)
            before = torch.stack([torch.as_tensor(one.norm).to(here) for one in kept])
            # A zero gradient has no direction: 0 / 0 gives nan.
            products = grouped.products(gradients, [one.tensor for one in kept])
            found.norms.put_on_device(places, here)
            found.previous_norms.put_on_device(places, before)
            found.cosines.put_on_device(places, products / (here * before))
        for index in alone:
            place, gradient, one = pairs[index]
            sums = cpu.inner_products(gradient, one.tensor)
            if sums is not None:
                batch, first = _batch_of({"": one}), np.zeros(1, np.int64)
                at = np.array([place])
                self._put_sums(found, at, Seen([gradient]), batch, first, np.array([sums]))
                continue
            here = safe_norm(gradient)
            product = torch.dot(gradient.flatten(), one.tensor.flatten())
            found.norms.put_each([place], [here])
            found.previous_norms.put_each([place], [one.norm])
            found.cosines.put_each([place], [product / (here * one.norm)])

    def _keep(self, given: "_Given", norms: Numbers) -> None:
        """Keep the gradients for the next step."""
        names = given.names
        # A later check compares norms. Only a norm in main memory needs no wait.
        can_skip = (norms.where == 0) & ~given.are_parts()
        if self._may_skip_copy is None:
            self._watched |= {
                names[at]: weakref.ref(given.tensors[at])
                for at in np.flatnonzero(can_skip).tolist()
            }
        are_copies = ~can_skip if self._may_skip_copy else np.ones(len(names), dtype=bool)
        if are_copies.any() or not given.is_plain:
            tensors = [given.dense_at(at) for at in range(len(names))]
            self._copy(names, tensors, np.flatnonzero(are_copies).tolist())
            seen = Seen(tensors, given.seen.looks)
        else:
            seen = given.detached()
        seen.addresses()  # where they are now
        if names:
            self._batches.append(_Batch(names, seen, norms, are_copies))
        if self._in_turns:
            copied = np.flatnonzero(are_copies).tolist()
            self._buffers = {names[at]: self._buffers[names[at]] for at in copied}

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
        _, _, rest = self._copying(Seen(chosen), Seen(buffers))
        groups, alone = grouped.groups_of([chosen[at] for at in rest])
        for group in groups:
            inside = [rest[index] for index in group]
            grouped.copy([buffers[at] for at in inside], [chosen[at] for at in inside])
        for index in alone:
            buffers[rest[index]].copy_(chosen[rest[index]])
        for at, buffer in zip(places, buffers, strict=True):
            tensors[at] = buffer


class _Given:
    """The gradients that parameters have now: `tensors` by `names`.

    `is_plain` says whether each is real and dense, and all of what it stands for. If a sum over
    processes is pending, it is formed here, so all processes must make this.
    """

    def __init__(
        self, names: Sequence[str], tensors: Sequence[Tensor], before: Looks | None
    ) -> None:
        self.names, self.tensors = names, tensors
        self.seen = Seen(tensors, before)
        self.is_plain = self.seen.looks.are_plain
        self._summed: dict[str, Tensor] = {}
        if not self.is_plain:
            special = zip(names, tensors, strict=True)
            self._summed = sums_of_partial(
                {n: one for n, one in special if type(one) is not Tensor}
            )

    def places(self, names: Sequence[str]) -> np.ndarray:
        """The places of `names`."""
        if len(names) == len(self.names) and list(names) == list(self.names):
            return np.arange(len(names))
        places = {name: place for place, name in enumerate(self.names)}
        return np.array([places[name] for name in names], np.int64)

    def dense_at(self, place: int) -> Tensor:
        """What this process holds of a gradient, as a dense tensor."""
        name = self.names[place]
        return self._summed[name] if name in self._summed else dense_gradient(self.tensors[place])

    def are_parts(self) -> np.ndarray:
        """Which gradients are views, or not the whole of what they stand for: [n]."""
        found = np.fromiter(map(Tensor._is_view, self.tensors), bool, len(self.tensors))
        if not self.is_plain:
            found |= np.array([one.is_sparse or is_partial(one) for one in self.tensors])
        return found

    def detached(self) -> Seen:
        """The gradients without what computed them."""
        if not any(map(_REQUIRES_GRAD, self.tensors)):
            return self.seen
        return Seen(list(map(Tensor.detach, self.tensors)), self.seen.looks)
