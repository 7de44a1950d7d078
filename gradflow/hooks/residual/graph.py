"""The autograd graph of a forward pass, as plain numbers.

A graph is read once, from the outputs back. Its nodes are kept apart from its `Structure` (how the
nodes are connected). Most models have the same structure at every step; it can be compared, hashed
and analysed without torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

from gradflow.hooks.residual.sums import INDEX_PUT_ADDING

INDEX_PUTS = ("IndexPut", "IndexPutImpl", "UnsafeIndexPut")
LEAF = "torch::autograd::AccumulateGrad"
# The kind of a node that is not an operation of the pass, but an input that needs a gradient.
INPUT = "(input)"


class Value(NamedTuple):
    """A tensor of the graph: the node that computed it, and the index among the node's outputs."""

    node: int
    output: int


class Edge(NamedTuple):
    """A use of a tensor: the operation that reads it, and the position among its inputs."""

    node: int
    position: int


# A parameter among the inputs of a node. A constant is None.
PARAMETER = Value(-1, 0)
Inputs = tuple[Value | None, ...]


@dataclass(frozen=True)
class Structure:
    """How the V nodes of a graph are connected; a node comes after the nodes that it reads.

    Fields:
        kinds: [V] the operation's name in autograd without `Backward` and number (`Add`,
            `Convolution`); the full name of an operation that the user defined (`MyBackward`);
            `INPUT` for a node made before the pass began, or a leaf that is not a parameter.
        inputs: [V] the inputs of each operation: a value, `PARAMETER`, or None for a constant.
        outputs: the nodes that computed the outputs.
    """

    kinds: tuple[str, ...]
    inputs: tuple[Inputs, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """The graph of one forward pass: its structure, and its nodes in the same order."""

    structure: Structure
    nodes: list[Node]


def read_graph(output: Any, start: int) -> Graph:
    """Read the graph of the tensors in `output`, back to nodes with numbers below `start`."""
    outputs = [tensor.grad_fn for tensor in tensors_in(output)]
    places: dict[Node, int] = {}
    kinds: list[str] = []
    inputs: list[Inputs] = []
    nodes: list[Node] = []
    # Depth first, without recursion: a node is numbered after all the nodes that it reads.
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
            kind = _kind(node)
            read = tuple(_value(parent, index, places) for parent, index in node.next_functions)
        places[node] = len(nodes)
        nodes.append(node)
        kinds.append(kind)
        inputs.append(read)
    ends = tuple(dict.fromkeys(places[node] for node in outputs if node is not None))
    return Graph(Structure(tuple(kinds), tuple(inputs), ends), nodes)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield all tensors in any nesting of tensors, tuples, lists, dicts and dataclasses."""
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
    """Return the shape of an output of `node`, or None if the node does not hold it."""
    known = getattr(node, "_input_metadata", None)
    try:
        return tuple(known[index].shape) if known and index < len(known) else None
    except RuntimeError:
        return None  # a nested tensor of the strided layout, whose tensors may differ in shape


def _is_expanded(node: Node, start: int) -> bool:
    # Autograd gives leaves the largest number, so they are excluded by name.
    return node.name() != LEAF and node._sequence_nr() >= start


def _is_parameter(node: Node) -> bool:
    return node.name() == LEAF and isinstance(getattr(node, "variable", None), nn.Parameter)


def _value(parent: Node | None, index: int, places: dict[Node, int]) -> Value | None:
    if parent is None:
        return None
    place = places.get(parent)
    return PARAMETER if place is None else Value(place, index)


def _kind(node: Node) -> str:
    name = node.name()
    bare = name.rstrip("0123456789")
    kind = bare.removesuffix("Backward") if bare != name else name
    if kind in INDEX_PUTS and getattr(node, "_saved_accumulate", False):
        return INDEX_PUT_ADDING
    return kind
