"""The autograd graph behind the outputs of a forward pass, as plain numbers.

A graph is read once, from the outputs back. What its nodes are is kept apart from how they hang
together (`Structure`), which is the same at every step of most models and can be compared, hashed
and analysed without torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

_LEAF = "torch::autograd::AccumulateGrad"
# Kinds of nodes that are no operation: what enters the pass with a gradient of its own.
INPUT = "(input)"


class Value(NamedTuple):
    """A tensor of the graph: the node that made it, and which of the node's outputs it is."""

    node: int
    output: int


class Edge(NamedTuple):
    """An operation that reads a tensor, and which of its inputs the tensor is."""

    node: int
    position: int


# Stands for a parameter among the inputs of a node; None stands for a constant.
PARAMETER = Value(-1, 0)
Inputs = tuple[Value | None, ...]


@dataclass(frozen=True)
class Structure:
    """How the V nodes of a graph hang together; a node comes after those whose outputs it reads.

    Fields:
        kinds: [V] the operation's name in autograd without its trailing number (`Add`,
            `Convolution`); a name as it is for an operation that the user defined (`MyBackward`);
            `INPUT` for a node that was there before the pass began, or a leaf that is no
            parameter.
        inputs: [V] what each operation reads: a value, `PARAMETER`, or None for a constant.
        outputs: the nodes that made the outputs.
    """

    kinds: tuple[str, ...]
    inputs: tuple[Inputs, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """The graph of one pass: its structure, and the nodes in the same order."""

    structure: Structure
    nodes: list[Node]


def read_graph(output: Any, start: int) -> Graph:
    """The graph behind the tensors in `output`, back to the nodes made before number `start`."""
    outputs = [tensor.grad_fn for tensor in tensors_in(output)]
    places: dict[Node, int] = {}
    kinds: list[str] = []
    inputs: list[Inputs] = []
    nodes: list[Node] = []
    # Depth first without recursion; a node is numbered once all that it reads is numbered.
    pending: list[tuple[Node, bool]] = [(node, False) for node in outputs[::-1] if node is not None]
    seen: set[Node] = set()
    while pending:
        node, done = pending.pop()
        if not done:
            if node in seen:
                continue
            seen.add(node)
            if _is_expanded(node, start):
                pending.append((node, True))
                pending.extend(
                    (parent, False)
                    for parent, _ in node.next_functions
                    if parent is not None and parent not in seen and not _is_parameter(parent)
                )
                continue
            read: Inputs = ()
            kind = INPUT
        else:
            kind = _kind(node.name())
            read = tuple(_value(parent, index, places) for parent, index in node.next_functions)
        places[node] = len(nodes)
        nodes.append(node)
        kinds.append(kind)
        inputs.append(read)
    ends = tuple(dict.fromkeys(places[node] for node in outputs if node is not None))
    return Graph(Structure(tuple(kinds), tuple(inputs), ends), nodes)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """All tensors in a tensor, tuple, list, dict or dataclass, however nested."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for entry in output.values():
            yield from tensors_in(entry)
    elif isinstance(output, (tuple, list)):
        for entry in output:
            yield from tensors_in(entry)
    elif is_dataclass(output) and not isinstance(output, type):
        for entry in fields(output):
            yield from tensors_in(getattr(output, entry.name))


def shape_of(node: Node, index: int) -> tuple[int, ...] | None:
    """The shape of an output of `node`; None where the node does not tell."""
    known = getattr(node, "_input_metadata", None)
    return tuple(known[index].shape) if known and index < len(known) else None


def _is_expanded(node: Node, start: int) -> bool:
    # The number of a leaf is the largest there is.
    return node.name() != _LEAF and node._sequence_nr() >= start


def _is_parameter(node: Node) -> bool:
    return node.name() == _LEAF and isinstance(getattr(node, "variable", None), nn.Parameter)


def _value(parent: Node | None, index: int, places: dict[Node, int]) -> Value | None:
    if parent is None:
        return None
    place = places.get(parent)
    return PARAMETER if place is None else Value(place, index)


def _kind(name: str) -> str:
    bare = name.rstrip("0123456789")
    return bare.removesuffix("Backward") if bare != name else name
