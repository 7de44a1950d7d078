"""Finds the module whose forward created a node, from autograd's sequence numbers.

Autograd numbers the nodes of a thread in order of creation. `ModuleOrder` notes the number at the
start and end of every module's forward, so a node's number tells later which module created it.
"""

from bisect import bisect_right
from collections import Counter

import torch
from torch import nn

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def may_add(module: nn.Module) -> bool:
    """Whether the forward of `module` itself, not that of a submodule, may add tensors.

    False for lists, plain sequences and PyTorch's own layers. Recurrent layers count: their
    additions are not residual and must not be taken for those of the module around them.
    """
    kind = type(module)
    if isinstance(module, _RECURRENT):
        return True
    if kind.forward in (nn.Sequential.forward, nn.Module.forward):
        return False
    has_children = next(module.children(), None) is not None
    return has_children or not kind.__module__.startswith("torch.nn.modules")


class ModuleOrder:
    """Notes which module runs, from the start of the outermost one to its end."""

    def __init__(self) -> None:
        self.start = 0
        self._sequence_numbers: list[int] = []
        self._names: list[str | None] = []
        self._stack: list[tuple[str, str | None]] = []
        self._calls: Counter[str] = Counter()
        # The calls of single recurrent cells.
        self.cells: set[str] = set()

    def forget(self) -> None:
        """Forget all calls, as before the first forward pass of a step."""
        self._stack.clear()
        self._calls.clear()
        self._clear()

    def enter(self, name: str, module: nn.Module) -> None:
        """Note that the forward of `module`, named `name`, starts."""
        if not self._stack:
            self._clear()
            self.start = next_sequence_number()
        self._calls[name] += 1
        layer = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        if isinstance(module, nn.RNNCellBase):
            self.cells.add(layer)
        self._stack.append((name, None if isinstance(module, nn.RNNBase) else layer))
        self._note(self._stack[-1][1])

    def leave(self, name: str) -> bool:
        """Note that the forward of module `name` ends; return whether it was the outermost."""
        if not self._stack:
            return False
        # A module ended by an exception did not call leave; the exception was caught further out.
        while self._stack and self._stack.pop()[0] != name:
            pass
        if not self._stack:
            return True
        self._note(self._stack[-1][1])
        return False

    def so_far(self) -> tuple[list[int], list[str | None], set[str]]:
        """Return all that `module_at` and `cells` depend on, in numbers counted from `start`."""
        numbers = [number - self.start for number in self._sequence_numbers]
        return numbers, self._names.copy(), self.cells.copy()

    def module_at(self, sequence: int) -> str | None:
        """Return the innermost module that ran when node number `sequence` was created.

        None inside a recurrent layer, and before the outermost module.
        """
        place = bisect_right(self._sequence_numbers, sequence)
        return self._names[place - 1] if place else None

    def _note(self, layer: str | None) -> None:
        self._sequence_numbers.append(next_sequence_number())
        self._names.append(layer)

    def _clear(self) -> None:
        self._sequence_numbers.clear()
        self._names.clear()
        self.cells.clear()


def next_sequence_number() -> int:
    """Return the number that autograd will give to the next node created in this thread."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number
