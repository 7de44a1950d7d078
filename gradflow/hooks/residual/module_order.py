"""Which module ran when: the numbers that autograd gives its nodes, told apart by module.

Autograd numbers the nodes of a thread in order of creation. Noting the number at every begin and
end of a module's forward tells which module made a node, long after.
"""

from bisect import bisect_right
from collections import Counter

import torch
from torch import nn

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def may_add(module: nn.Module) -> bool:
    """Whether the forward of `module` itself, not of a module inside it, may add tensors.

    False for lists and plain sequences, and for PyTorch's own layers. Recurrent layers do add, but
    nothing that is residual: they are to be told apart from what is around them.
    """
    kind = type(module)
    if isinstance(module, _RECURRENT):
        return True
    if kind.forward in (nn.Sequential.forward, nn.Module.forward):
        return False
    has_children = next(module.children(), None) is not None
    return has_children or not kind.__module__.startswith("torch.nn.modules")


class ModuleOrder:
    """Notes which module runs, from the begin of the outermost one to its end."""

    def __init__(self) -> None:
        self.start = 0
        self._sequence_numbers: list[int] = []
        self._names: list[str | None] = []
        self._stack: list[tuple[str, str | None]] = []
        self._calls: Counter[str] = Counter()

    def forget(self) -> None:
        """Begin anew, as before the first forward pass of a step."""
        self._stack.clear()
        self._calls.clear()
        self._clear()

    def enter(self, name: str, module: nn.Module) -> None:
        """Note that the forward of `module`, called `name`, begins."""
        if not self._stack:
            self._clear()
            self.start = next_sequence_number()
        self._calls[name] += 1
        layer = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        self._stack.append((name, None if isinstance(module, _RECURRENT) else layer))
        self._note(self._stack[-1][1])

    def leave(self, name: str) -> bool:
        """Note that the forward of the module `name` ends; true where it was the outermost."""
        if not self._stack:
            return False
        # Modules that an exception ended, caught further out, never left.
        while self._stack and self._stack.pop()[0] != name:
            pass
        if not self._stack:
            return True
        self._note(self._stack[-1][1])
        return False

    def module_at(self, sequence: int) -> str | None:
        """The innermost module that ran when node number `sequence` was made.

        None in a recurrent layer, and before the outermost module.
        """
        place = bisect_right(self._sequence_numbers, sequence)
        return self._names[place - 1] if place else None

    def _note(self, layer: str | None) -> None:
        self._sequence_numbers.append(next_sequence_number())
        self._names.append(layer)

    def _clear(self) -> None:
        self._sequence_numbers.clear()
        self._names.clear()


def next_sequence_number() -> int:
    """The number that autograd will give the next node made in this thread."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number
