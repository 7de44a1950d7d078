"""Keeps the gradients of the previous step, for their cosine with those of the next one.

A gradient is kept as a copy, or as the tensor itself, which saves the copy. The tensor itself is
enough if the user releases it (`zero_grad(set_to_none=True)`, the default) and the optimizer does
not change it. In the first steps gradients are copied, and both conditions are checked. Later, an
uncopied gradient must still have its recorded norm when it is used, and autograd must have counted
no change of it since the step had ended. Else that one cosine is missing, and gradients are copied
from then on.
"""

import weakref
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.processes.tensors import local_part
from gradflow.hooks.recording.parameter_table import Numbers
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.deferred.same_looks import Looks
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.updates.measures import grouped, one_by_one
from gradflow.hooks.updates.measures.kept_gradients import (
    GivenGradients,
    GradientMeasures,
    KeptBatch,
    KeptGradient,
    batch_of,
)
from gradflow.hooks.updates.measures.many import (
    Loop,
    Seen,
    address_of,
    are_alike,
    norms,
)
from gradflow.hooks.updates.measures.room import Room, in_one_piece

# Sums of the same squares in float64, in different orders, differ by less than this, relatively.
_NORM_TOLERANCE = 1e-9
_GRADIENT = attrgetter("grad")


class PreviousGradients:
    """Measures gradients when an optimizer's step begins, and keeps them for the next step.

    Args:
        rooms: for the copies, if the gradients kept at one step are not those kept at the next:
            two, of which the second is only used while some in the first are still to be compared.
    """

    def __init__(self, rooms: tuple[Room, Room] | None = None) -> None:
        self._rooms = rooms
        self._room = 0
        self._used: dict[torch.device, int] | None = None
        self._batches: list[KeptBatch] = []
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
            self._batches = [batch_of(kept)]
        self._decide_on_copies(parameters)
        self._used = None

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
        given = GivenGradients(names, gradients, self._looks)
        self._looks = given.seen.looks
        before = self._take(names)
        found = self._compare(given, before if compare else None)
        if keep:
            self._keep(given, found.norms)
        return found

    def end_step(self) -> None:
        """Once the optimizers have stepped: what is kept is not to be changed from now on."""
        for batch in self._batches:
            batch.note_versions()

    @property
    def watches(self) -> bool:
        """Whether it is to be found out what the step does to the gradients."""
        return self._may_skip_copy is None and bool(self._watched)

    def check_after_step(self, parameters: Mapping[str, Tensor]) -> None:
        """After the optimizer's first step, check whether it changed the gradients."""
        if not self.watches:
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
        gradients = dict(state["gradients"])
        self._buffers = {} if self._rooms is not None else gradients
        kept = {
            name: KeptGradient(tensor, norms[name], True, address_of(tensor))
            for name, tensor in gradients.items()
        }
        self._batches = [batch_of(kept)]
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

    def _each(self) -> dict[str, KeptGradient]:
        return {name: one for batch in self._batches for name, one in batch.each().items()}

    def _take(self, names: Sequence[str]) -> KeptBatch | None:
        """Take what is kept of `names`: as it was kept, if these are the names of a batch."""
        for place, batch in enumerate(self._batches):
            if len(batch.names) == len(names) and list(batch.names) == list(names):
                return self._batches.pop(place)
        kept = self._each()
        taken = {name: kept.pop(name) for name in names if name in kept}
        if not taken:
            return None
        self._batches = [batch_of(kept)] if kept else []
        return batch_of(taken)

    def _compare(self, given: GivenGradients, before: KeptBatch | None) -> GradientMeasures:
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
        self,
        found: GradientMeasures,
        given: GivenGradients,
        places: np.ndarray,
        before: KeptBatch,
    ) -> None:
        """Compare the gradients at `places` with those kept of the same parameters."""
        is_all = len(places) == len(given.names)
        seen = given.seen if is_all else Seen([given.tensors[at] for at in places.tolist()])
        moved = before.have_changed()
        if moved.any():
            # Somebody has put other memory into a tensor that was kept, or written into it.
            self._may_skip_copy = False
            still = np.flatnonzero(~moved)
            kept = list(before.each().items())
            before = batch_of(dict(kept[at] for at in still.tolist()))
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
        before: KeptBatch,
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
        self, found: GradientMeasures, pairs: Sequence[tuple[int, Tensor, KeptGradient]]
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
                batch, first = batch_of({"": one}), np.zeros(1, np.int64)
                at = np.array([place])
                self._put_sums(found, at, Seen([gradient]), batch, first, np.array([sums]))
                continue
            here = safe_norm(gradient)
            product = one_by_one.product(gradient, one.tensor)
            found.norms.put_each([place], [here])
            found.previous_norms.put_each([place], [one.norm])
            found.cosines.put_each([place], [product / (here * one.norm)])

    def _keep(self, given: GivenGradients, norms: Numbers) -> None:
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
            self._batches.append(KeptBatch(names, seen, norms, are_copies))

    def _copy(self, names: Sequence[str], tensors: list[Tensor], places: Sequence[int]) -> None:
        """Put copies of the tensors at `places` in their stead.

        The buffers are used again: allocating new ones costs three times the copy.
        """
        chosen = [tensors[at] for at in places]
        buffers = self._buffers_for([names[at] for at in places], chosen)
        _, _, rest = self._copying(Seen(chosen), Seen(buffers))
        groups, alone = grouped.groups_of([chosen[at] for at in rest])
        for group in groups:
            inside = [rest[index] for index in group]
            grouped.copy([buffers[at] for at in inside], [chosen[at] for at in inside])
        for index in alone:
            buffers[rest[index]].copy_(chosen[rest[index]])
        for at, buffer in zip(places, buffers, strict=True):
            tensors[at] = buffer

    def _buffers_for(self, names: Sequence[str], tensors: Sequence[Tensor]) -> list[Tensor]:
        if self._rooms is not None:
            if self._used is None:  # the first copies of this step
                self._used = {}
                self._change_rooms(self._rooms)
            room, used = self._rooms[self._room], self._used
            return [room.like(tensor, used) for tensor in tensors]
        new = {
            name: tensor
            for name, tensor in zip(names, tensors, strict=True)
            if name not in self._buffers or not are_alike(tensor, self._buffers[name])
        }
        # One by one they would leave gaps beside the optimizer's state, if they are let go of.
        self._buffers.update(zip(new, in_one_piece(list(new.values())), strict=True))
        return [self._buffers[name] for name in names]

    def _change_rooms(self, rooms: tuple[Room, Room]) -> None:
        """Go to the room without gradients that are still to be compared."""
        if not any(len(batch.names) for batch in self._batches):
            return
        self._room = 1 - self._room
        room = rooms[self._room]
        kept = {name: one for name, one in self._each().items() if not room.has(one.tensor)}
        self._batches = [batch_of(kept)]
