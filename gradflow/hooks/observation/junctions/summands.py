"""The moments of what residual additions add: outputs of layers, and what other layers read."""

import weakref
from contextlib import suppress
from typing import Any, Protocol

from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.layers import first_tensor
from gradflow.hooks.processes.layouts import Layouts
from gradflow.hooks.processes.tensors import held_here
from gradflow.hooks.reduction.deferred.junction_records import Seen
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import Habit
from gradflow.hooks.reduction.fused import moments_if_any
from gradflow.hooks.residual.junctions import NodeOutput


class Made(Protocol):
    """The output of a layer: its moments, and the names of the layers that return it."""

    moments: Seen
    layers: tuple[str, ...]


class Summands:
    """Notes the outputs and inputs of the layers of a forward pass, by the nodes that made them.

    `layouts` tells which part of a tensor this process has, `reductions` reduces them.

    Fields:
        made: the outputs of layers, by `key_of`.
    """

    def __init__(self, layouts: Layouts, reductions: Reductions) -> None:
        self._layouts = layouts
        self._reductions = reductions
        # The keys are numbers, which are no work for the garbage collector.
        self.made: dict[int, Made] = {}
        # Other inputs of layers, and their versions.
        self._inputs: dict[int, weakref.ref[Tensor]] = {}
        self._versions: dict[int, int] = {}

    def clear(self) -> None:
        """Forget the tensors of the pass."""
        self.made.clear()
        self._inputs.clear()
        self._versions.clear()

    def note_output(self, args: tuple[Any, ...], output: Tensor, observed: Made) -> None:
        """Note the input and output of a layer: the summands of additions are found among them."""
        node = output.grad_fn
        if node is not None:
            self.made.setdefault(key_of(node, output.output_nr), observed)
        self.note_input(args)

    def note_input(self, args: tuple[Any, ...]) -> None:
        """Note the input of a layer."""
        given = args[0] if args and type(args[0]) is Tensor else None
        if given is None or (node := given.grad_fn) is None:
            given = first_tensor(args)
            node = None if given is None else given.grad_fn
        if given is not None and node is not None:
            place = given.output_nr
            if self._layouts.parts > 1:
                node, place = self._layouts.origin(node, place)
            key = key_of(node, place)
            if key not in self.made and key not in self._inputs:
                # A weak reference: if autograd does not need the tensor, its memory is released.
                self._inputs[key] = weakref.ref(given)
                self._versions[key] = given._version

    def moments_of(self, made: NodeOutput | None, habit: Habit) -> Seen | None:
        """Return the moments of a summand; None if its tensor is gone or was changed in place.

        `habit` is what is known of such summands.
        """
        if made is None:
            return None
        key = key_of(*made)
        output = self.made.get(key)
        if output is not None:
            return output.moments
        reference = self._inputs.get(key)
        tensor = None if reference is None else reference()
        if tensor is None or tensor._version != self._versions[key] or tensor.dim() < 2:
            return None
        axis = 2 if tensor.dim() == 3 else 1
        if self._layouts.parts == 1:
            usual = habit.usual
            if (
                usual is not None
                and type(tensor) is Tensor
                and tensor.shape == usual.shape
                and usual.axis == axis
            ):
                with suppress(RuntimeError):  # a tensor without a version or an address
                    return self._reductions.note_usual(tensor, usual)
            return self._reductions.reduce(held_here(tensor), axis, False, habit)
        seen = moments_if_any(held_here(tensor), axis)
        if seen is not None:
            seen.part = self._layouts.of(tensor).part(axis)
        return seen


def key_of(node: Node, output: int) -> int:
    """A number that tells an output of a node from the others of a pass."""
    return node._sequence_nr() << 16 | output
