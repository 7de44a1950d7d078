"""Copies of the weights from before a step, for the distance that the step moves them."""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.processes.tensors import local_part
from gradflow.hooks.recording.parameter_table import Numbers
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.deferred.same_looks import Looks
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.updates.measures import grouped, one_by_one
from gradflow.hooks.updates.measures.many import Loop, Seen, are_alike, norm_of, norms
from gradflow.hooks.updates.measures.room import Room, in_one_piece

# Bytes. Copies that are smaller are not worth a call each. On a CPU, the C library takes what is
# larger than the second from the system, at every time anew.
_LARGE = 1 << 16
_FROM_THE_HEAP = 1 << 25


class KeptWeights:
    """Measures weights, and keeps copies of them until the step has ended.

    To allocate buffers anew costs three times the copy if the system gives their memory page by
    page. It need not if the training has just freed as much, as at the end of its backward pass.
    Then large ones are let go of when the step has ended, for the activations of the next step.
    Those of the first step are in one piece: one by one they would leave gaps beside what is made
    meanwhile and stays, such as the state of the optimizer.

    Args:
        room: for the copies, if they share it with those of other turns. It is not let go of.

    Fields:
        names: of the weights kept in this step.
    """

    def __init__(self, room: Room | None = None) -> None:
        self.names: set[str] = set()
        self._copies: dict[str, Tensor] = {}
        self._room, self._version = room, 0
        self._used: dict[torch.device, int] = {}
        # The copies used last, as long as none of them has been replaced.
        self._listed: Sequence[str] = ()
        self._seen = Seen([])
        self._looks: Looks | None = None
        self._copies_look: Looks | None = None
        self._is_first_step = room is None
        self._are_new = False  # whether some copies were made since large ones were let go of
        self._square_sums = Loop("square_sum")
        self._copying = Loop("copy_and_square_sum")
        self._distances = Loop("square_distance")

    def norms(self, tensors: Sequence[Tensor]) -> Numbers:
        """Return the norms of weights, without keeping them."""
        looks = self._square_sums.looks
        seen = Seen(tensors, looks[0] if looks else None)
        return norms(self._square_sums, seen, lambda place: _held(tensors[place]))

    def keep(self, names: Sequence[str], tensors: Sequence[Tensor]) -> Numbers:
        """Copy the weights, in the read that measures them; return their norms."""
        self._begin()
        self.names.update(names)
        copies = self._copies_for(names, tensors)
        numbers = Numbers(len(names))
        sums, read, rest = self._copying(self._see(tensors), copies)
        numbers.put_host(read, np.sqrt(sums[read, 0]))
        if rest:
            self._keep_rest(numbers, rest, [(names[at], _held(tensors[at])) for at in rest])
        return numbers

    def keep_one(self, name: str, tensor: Tensor) -> Tensor | float:
        """Copy one weight; return its norm."""
        self._begin()
        self.names.add(name)
        weight = _held(tensor)
        kept = self._copy_for(name, weight)
        square = cpu.copy_and_square_sum(weight, kept)
        if square is not None:
            return math.sqrt(square)
        kept.copy_(weight)
        return safe_norm(weight)

    def distances(self, parameters: Mapping[str, Tensor]) -> tuple[Sequence[str], Numbers]:
        """Return which of `parameters` have kept weights, and how far each is from these now.

        Unknown for one that was converted, moved or resized meanwhile.
        """
        names: Sequence[str] = self._listed
        is_all = len(names) == len(self.names) and self.names.issuperset(names)
        if not is_all or not all(map(parameters.__contains__, names)):
            names = [name for name in parameters if name in self.names]
        tensors = [parameters[name] for name in names]
        copies = self._copies_for(names, tensors)
        numbers = Numbers(len(names))
        sums, read, rest = self._distances(self._see(tensors), copies)
        numbers.put_host(read, np.sqrt(sums[read, 0]))
        pairs = [(place, _held(tensors[place]), self._copies[names[place]]) for place in rest]
        pairs = [pair for pair in pairs if are_alike(pair[1], pair[2])]
        groups, alone = grouped.groups_of([weight for _, weight, _ in pairs])
        for group in groups:
            places, weights, kept = zip(*(pairs[index] for index in group), strict=True)
            numbers.put_on_device(np.array(places), grouped.distances(weights, kept))
        found = [one_by_one.distance(pairs[index][1], pairs[index][2]) for index in alone]
        numbers.put_each([pairs[index][0] for index in alone], found)
        return names, numbers

    def forget_all_but(self, names: AbstractSet[str]) -> None:
        """Let go of the copies of other weights than those in `names`."""
        for name in self._copies.keys() - names:
            del self._copies[name]
            self._listed, self._version = (), -1
        self.names.intersection_update(names)

    def end_step(self, *, let_go: bool = False) -> None:
        """Keep no weights of the step that has ended; with `let_go`, no large buffers either."""
        were_kept = bool(self.names)
        self.names.clear()
        if let_go and were_kept and self._are_new and self._room is None:
            large = [
                name
                for name, copy in self._copies.items()
                if self._is_first_step or _is_given_back(copy)
            ]
            for name in large:
                del self._copies[name]
            self._are_new = self._is_first_step = False
            if large:
                self._listed, self._seen = (), Seen([])

    def _begin(self) -> None:
        """Before the first copy of a step: let go of buffers in a room that is no longer used."""
        if self._room is not None and not self.names and self._version != self._room.version:
            self._copies, self._used, self._listed = {}, {}, ()
            self._seen = Seen([])

    def _keep_rest(
        self, numbers: Numbers, places: Sequence[int], weights: list[tuple[str, Tensor]]
    ) -> None:
        """Copy and measure the weights that the loop leaves out."""
        kept = [self._copy_for(name, weight) for name, weight in weights]
        tensors = [weight for _, weight in weights]
        groups, alone = grouped.groups_of(tensors)
        for group in groups:
            chosen = [tensors[index] for index in group]
            grouped.copy([kept[index] for index in group], chosen)
            numbers.put_on_device(
                np.array([places[index] for index in group]), grouped.norms(chosen)
            )
        found: list[Tensor | float] = []
        for index in alone:
            square = cpu.copy_and_square_sum(tensors[index], kept[index])
            if square is None:
                kept[index].copy_(tensors[index])
            found.append(norm_of(tensors[index]) if square is None else math.sqrt(square))
        numbers.put_each([places[index] for index in alone], found)

    def _see(self, tensors: Sequence[Tensor]) -> Seen:
        seen = Seen(tensors, self._looks)
        self._looks = seen.looks
        return seen

    def _copies_for(self, names: Sequence[str], tensors: Sequence[Tensor]) -> Seen:
        """The copies of weights, new ones for those that had none."""
        if not names or names is not self._listed:
            if self._is_first_step and not self._copies:
                self._are_new = True
                new = in_one_piece([_held(tensor) for tensor in tensors])
                self._copies = dict(zip(names, new, strict=True))
            for name, tensor in zip(names, tensors, strict=True):
                if name not in self._copies:
                    self._copies[name] = self._buffer(_held(tensor))
            copies = [self._copies[name] for name in names]
            self._listed, self._seen = names, Seen(copies, self._copies_look)
            self._copies_look = self._seen.looks
        return self._seen

    def _copy_for(self, name: str, weight: Tensor) -> Tensor:
        if name not in self._copies or not are_alike(weight, self._copies[name]):
            self._copies[name] = self._buffer(weight)
            self._listed = ()
        return self._copies[name]

    def _buffer(self, weight: Tensor) -> Tensor:
        self._are_new = True
        if self._room is None:
            return torch.empty_like(weight)
        is_first = not self._copies
        buffer = self._room.like(weight, self._used)
        if is_first:
            self._version = self._room.version
        return buffer


def _is_given_back(copy: Tensor) -> bool:
    """Whether the memory of a copy is worth giving back, and soon to be had again."""
    size = copy.numel() * copy.element_size()
    return size >= _LARGE and (size <= _FROM_THE_HEAP or not copy.is_cpu)


def _held(tensor: Tensor) -> Tensor:
    return local_part(tensor.detach())
