"""Which axis of an output [N, T, H] or [T, N, H] is that of positions, T.

Shapes alone do not tell. What tells is:

- a module that says `batch_first`, as torch's recurrent and attention layers do;
- an attention in the autograd graph: its weights are [N, heads, T, T], its result [N, heads, T, d].

Both give the sizes (N, T) of a pass. An output whose first two axes have these sizes has T there,
unless N and T are equal, or the axis is that of channels. What cannot be told is left out.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.autograd.graph import Node

from gradflow.hooks.residual.graph import shape_of

# Attention is looked for in so many steps, and among so many operations of an output.
_MOST_TRIES, _MOST_NODES = 3, 400
_RESULT, _WEIGHTS = "ScaledDotProduct", "SoftmaxBackward"
_OUTPUT_AXES = 3


class TimeAxes:
    """Learns the time axis of each layer's output, which it then keeps."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._sizes: set[tuple[int, int]] = set()
        self._tries = 0
        self._has_looked = False
        self._has_found = False
        # The layers whose module says it.
        self._saying: set[str] = set()

    @property
    def are_hopeless(self) -> bool:
        """Whether no axis is known, and nothing will be looked for until a module says one."""
        return self._tries >= _MOST_TRIES and not self._has_found

    def begin_pass(self) -> None:
        """A forward pass begins, with sizes of its own."""
        self._sizes.clear()

    def begin_step(self) -> None:
        """A recorded step begins."""
        self._tries += self._has_looked
        self._has_looked = False

    def note(self, layer: str, module: nn.Module, output: Tensor, *, may_look: bool) -> None:
        """Learn from a layer that ran; `may_look` says whether to look for attention before it."""
        if output.dim() != _OUTPUT_AXES:
            return
        if layer in self._known:
            if layer in self._saying:  # layers that began to be watched later learn from it
                axis = self._known[layer]
                self._sizes.add((output.shape[1 - axis], output.shape[axis]))
            return
        said = getattr(module, "batch_first", None)
        if isinstance(said, bool):
            self._known[layer] = axis = 1 if said else 0
            self._saying.add(layer)
            self._sizes.add((output.shape[1 - axis], output.shape[axis]))
        elif may_look and not self._sizes and self._tries < _MOST_TRIES:
            self._has_looked = True
            self._sizes.update(_attention_sizes(output))
        self._has_found |= bool(self._sizes)

    def of(
        self, layer: str, shape: Sequence[int] | None = None, channel_axis: int | None = None
    ) -> int | None:
        """Return the time axis of a layer's output; None if it is not known.

        With its shape, what the pass has told by now is used too; `channel_axis` is excluded.
        """
        if layer in self._known or shape is None:
            return self._known.get(layer)
        sizes = tuple(shape[:2])
        found = [axis for axis in (0, 1) if (sizes[1 - axis], sizes[axis]) in self._sizes]
        if len(found) == 1 and sizes[0] != sizes[1] and found[0] != channel_axis:
            self._known[layer] = found[0]
        return self._known.get(layer)


def _attention_sizes(output: Tensor) -> Iterator[tuple[int, int]]:
    """Yield (N, T) of each attention among the last operations that led to `output`."""
    waiting: list[Node] = [] if output.grad_fn is None else [output.grad_fn]
    met = set(waiting)
    for node in waiting:  # it grows meanwhile
        name = node.name()
        if name.startswith((_RESULT, _WEIGHTS)) and (shape := shape_of(node, 0)):
            is_result = name.startswith(_RESULT)
            if len(shape) > _OUTPUT_AXES and (is_result or shape[-1] == shape[-2]):
                yield shape[0], shape[-2]
        for parent, _ in node.next_functions:
            if parent is not None and parent not in met and len(waiting) < _MOST_NODES:
                met.add(parent)
                waiting.append(parent)
