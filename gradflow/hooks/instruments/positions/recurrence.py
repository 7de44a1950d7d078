"""Which modules are called in a loop over time: each call computes on from the call before it."""

from torch import Tensor, nn
from torch.autograd.graph import Node

# So many operations are looked through between a call and the one before it.
_MOST_NODES = 1000


class Recurrence:
    """Finds the modules whose second call in a pass depends on the first.

    So it is with a cell in a loop, and with a linear layer from state to state. It is not so with
    a head that is shared by several tensors. A module without parameters, such as an activation
    that a network uses everywhere, is none.
    """

    def __init__(self) -> None:
        self._is_recurrent: dict[str, bool] = {}
        self._first: dict[str, Node | None] = {}

    @property
    def modules(self) -> list[str]:
        """The names of those found."""
        return [name for name, found in self._is_recurrent.items() if found]

    def knows(self, name: str) -> bool:
        """Whether it has been found out of the module `name`."""
        return name in self._is_recurrent

    def note(self, name: str, layer: str, module: nn.Module, output: Tensor) -> None:
        """Learn from a call of the module `name`, which is the layer `layer`."""
        if name in self._is_recurrent:
            return
        if layer == name:
            self._first[name] = output.grad_fn
        elif name in self._first:
            first = self._first.pop(name)
            has_parameters = next(module.parameters(), None) is not None
            self._is_recurrent[name] = has_parameters and _depends(output.grad_fn, first)

    def end_step(self) -> None:
        """Those called once in this step are not asked again."""
        self._is_recurrent |= dict.fromkeys(self._first, False)
        self._first.clear()

    def model_has_changed(self) -> None:
        """Forget what was found: names may be of other modules now."""
        self._is_recurrent.clear()
        self._first.clear()


def _depends(node: Node | None, earlier: Node | None) -> bool:
    """Whether the operation `node` computes from the result of `earlier`, as far as is seen."""
    if node is None or earlier is None or node is earlier:
        return False
    oldest = earlier._sequence_nr()
    waiting, met = [node], {node}
    for one in waiting:  # it grows meanwhile
        for parent, _ in one.next_functions:
            if parent is earlier:
                return True
            if parent is None or parent in met or parent._sequence_nr() < oldest:
                continue
            met.add(parent)
            waiting.append(parent)
        if len(waiting) > _MOST_NODES:
            return False
    return False
