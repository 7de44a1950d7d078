"""Recognizes a graph that has the structure of an earlier one, at less than reading it anew.

Reading a graph and looking for its residual additions takes much longer than comparing it with one
that is known: node by node and edge by edge, from the outputs back. So nothing is analysed again
until the structure changes: by a branch in the forward pass, a dropped layer, another number of
calls. What is compared is all that a `Structure` says, and the numbers that autograd gives to the
nodes in order of their creation, which tell the modules that made them.
"""

from collections.abc import Sequence
from typing import Any, cast

from torch import nn
from torch.autograd.graph import Node

from gradflow.hooks.residual.graph import (
    INDEX_PUTS,
    INPUT,
    LEAF,
    PARAMETER,
    Graph,
    read_graph,
    tensors_in,
)

_CONSTANT, _WEIGHT = -2, -1
# What an edge must lead to: the place of a node, or one of these two; its output; and the node that
# adds up a weight's gradient, which is the same in all passes as long as somebody holds it.
_Expected = tuple[int, int, Node | None]


class GraphReader:
    """Reads graphs one after the other; most have the structure of the one before."""

    def __init__(self) -> None:
        self._known: _KnownGraph | None = None

    def read(self, output: Any, start: int) -> Graph:
        """Return the graph of `output`, as `read_graph` does.

        Its structure is the same object as that of the last graph if it has not changed.
        """
        outputs = [tensor.grad_fn for tensor in tensors_in(output)]
        if self._known is not None:
            nodes = self._known.nodes_of(outputs, start)
            if nodes is not None:
                return Graph(self._known.structure, nodes)
        graph = read_graph(output, start)
        self._known = _KnownGraph(graph, outputs, start)
        return graph


class _KnownGraph:
    """What is compared of a graph; see the module."""

    def __init__(self, graph: Graph, outputs: Sequence[Node | None], start: int) -> None:
        self.structure = graph.structure
        places = {node: place for place, node in enumerate(graph.nodes)}
        self._outputs = [-1 if node is None else places[node] for node in outputs]
        types = [type(node) for node in graph.nodes]
        # Functions of C++ that have no class of their own in Python.
        self._names = [
            (place, node.name())
            for place, node in enumerate(graph.nodes)
            if type(node).__name__ == "CppFunction"
        ]
        self._inputs = [place for place, kind in enumerate(graph.structure.kinds) if kind == INPUT]
        self._index_puts = [
            (place, _accumulates(node))
            for place, node in enumerate(graph.nodes)
            if any(one in node.name() for one in INDEX_PUTS)
        ]
        numbers = [
            None if kind == INPUT else node._sequence_nr() - start
            for kind, node in zip(graph.structure.kinds, graph.nodes, strict=True)
        ]
        edges = [
            _expected(node, inputs)
            for node, inputs in zip(graph.nodes, graph.structure.inputs, strict=True)
        ]
        # From the outputs back: place, class and number of each node, and what it must read.
        self._steps = list(
            zip(range(len(types)), types, numbers, edges, strict=True),
        )[::-1]

    def nodes_of(  # noqa: PLR0911 - one loop over all nodes: a call for each would take longer
        self, outputs: Sequence[Node | None], start: int
    ) -> list[Node] | None:
        """Return the nodes of a graph in the order of `structure`; None if it has another."""
        nodes: list[Node | None] = [None] * len(self._steps)
        if len(outputs) != len(self._outputs):
            return None
        if not all(_put(nodes, *one) for one in zip(self._outputs, outputs, strict=True)):
            return None
        for place, kind, number, expected in self._steps:
            node = nodes[place]
            if type(node) is not kind:
                return None
            # Different nodes have different numbers. An input has none, see `_has_inputs`.
            if number is None:
                continue
            given = node.next_functions
            if node._sequence_nr() - start != number or len(given) != len(expected):
                return None
            for (parent, output), (target, wanted, accumulator) in zip(
                given, expected, strict=False
            ):
                if target >= 0:
                    known = nodes[target]
                    if output != wanted or (known is not None and known is not parent):
                        return None
                    nodes[target] = parent
                elif parent is not accumulator and not (target == _WEIGHT and is_parameter(parent)):
                    return None
        found = cast("list[Node]", nodes)
        return found if self._has_names(found) and self._has_inputs(found, start) else None

    def _has_names(self, nodes: list[Node]) -> bool:
        """Whether the operations are the same where their classes do not tell."""
        return all(nodes[place].name() == name for place, name in self._names) and all(
            _accumulates(nodes[place]) == adds for place, adds in self._index_puts
        )

    def _has_inputs(self, nodes: list[Node], start: int) -> bool:
        """Whether what must come from before the pass does, and does not come from parameters."""
        inputs = [nodes[place] for place in self._inputs]
        return len(set(inputs)) == len(inputs) and all(
            not is_parameter(node) if node.name() == LEAF else node._sequence_nr() < start
            for node in inputs
        )


def is_parameter(node: Node | None) -> bool:
    """Whether `node` adds up the gradient of a parameter."""
    return (
        node is not None
        and node.name() == LEAF
        and isinstance(getattr(node, "variable", None), nn.Parameter)
    )


def _expected(node: Node, inputs: Sequence[Any]) -> list[_Expected]:
    edges: list[_Expected] = []
    # An input has none that count.
    for (parent, output), value in zip(node.next_functions, inputs, strict=False):
        if value is None:
            edges.append((_CONSTANT, 0, None))
        elif value is PARAMETER:
            edges.append((_WEIGHT, 0, parent))
        else:
            edges.append((value.node, output, None))
    return edges


def _put(nodes: list[Node | None], place: int, node: Node | None) -> bool:
    """Put an output's node in its place; return whether it may be there."""
    if node is None or place < 0:
        return node is None and place < 0
    if nodes[place] is not None and nodes[place] is not node:
        return False
    nodes[place] = node
    return True


def _accumulates(node: Node) -> bool:
    return bool(getattr(node, "_saved_accumulate", False))
