"""Paths in an autograd graph: from a summand of an addition back to x, and all that is between."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gradflow.hooks.residual.graph import INPUT, PARAMETER, Edge, Inputs, Structure, Value
from gradflow.hooks.residual.operations import (
    ALLOWED_ON_GATED_SKIP,
    ALLOWED_ON_SKIP,
    ELEMENTARY,
    LOOKUPS,
    NORMALIZATIONS,
    PRODUCTS,
    RESHAPES,
    WEIGHTED,
    count_weighted_maps,
    data_position,
    is_custom,
)
from gradflow.hooks.residual.sums import WAYS, WAYS_WITHIN_GATED, Way

# A path with more operations, or more gates and sums, than this is not a skip.
_MAX_OPERATIONS = 16
_MAX_GATES = 2

Term = tuple[Edge, Value]


@dataclass(frozen=True)
class Summands:
    """An operation read as the sum of a skip and `terms`.

    `gates` are the edges among `terms` whose data multiplies the skip.
    """

    skip: Term
    terms: tuple[Term, ...]
    gates: tuple[Edge, ...]


@dataclass(frozen=True)
class Skip:
    """A path from one summand of an addition back to x.

    Fields:
        end: the input of the addition by which the skip enters.
        x: the tensor that the path has come to; `last` is the edge that reads it.
        operations: those on the path.
        sums: the other additions on the path.
        terms: all that the addition and these sums add to the skip, and the gates' data.
        gates: the edges among `terms` whose data multiplies the skip.
        mixed: whether the skip is all but one of the streams into which x was mixed.
        reshaped: x in other shapes, with the same elements; who reads one of them reads x.
    """

    end: Term
    x: Value
    last: Edge
    terms: tuple[Term, ...]
    operations: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    gates: tuple[Edge, ...] = ()
    reshaped: tuple[Value, ...] = ()
    mixed: bool = False

    def back(self, to: Term, **changes: Any) -> "Skip":
        """Return the path prolonged to the tensor that the edge in `to` reads."""
        return replace(self, **{"last": to[0], "x": to[1], "reshaped": (), **changes})


@dataclass(frozen=True)
class Branch:
    """All operations between x and the terms, and the edges by which they read x.

    `dominated` says whether all data enters the branch through x.
    """

    nodes: frozenset[int]
    edges: tuple[Edge, ...]
    dominated: bool


class Paths:
    """The paths of one `Structure`."""

    def __init__(self, structure: Structure) -> None:
        self.kinds, self.inputs = structure.kinds, structure.inputs
        self.outputs = frozenset(structure.outputs)
        self.readers: dict[Value, list[Edge]] = {}
        # For each node, the set of itself and its ancestors, as bits of an integer.
        self.ancestry: list[int] = []
        self.sources = 0
        for node, (kind, inputs) in enumerate(zip(self.kinds, self.inputs, strict=True)):
            ancestry = 1 << node
            for position, value in enumerate(inputs):
                if value is not None and value is not PARAMETER:
                    ancestry |= self.ancestry[value.node]
                    self.readers.setdefault(value, []).append(Edge(node, position))
            self.ancestry.append(ancestry)
            if _is_source(kind, inputs):
                self.sources |= 1 << node

    @cached_property
    def followers(self) -> dict[int, list[int]]:
        """For each node, the nodes that read its outputs."""
        followers: dict[int, list[int]] = {}
        for value, edges in self.readers.items():
            followers.setdefault(value.node, []).extend(edge.node for edge in edges)
        return followers

    def computed(self, node: int) -> list[Term]:
        """Return the inputs of a node that are neither parameters nor constants."""
        return [
            (Edge(node, position), value)
            for position, value in enumerate(self.inputs[node])
            if value is not None and value is not PARAMETER
        ]

    def has_data(self, value: Value) -> bool:
        """Whether `value` depends on data, and not on parameters alone."""
        return bool(self.ancestry[value.node] & self.sources)

    def summands(self, node: int, ways: dict[str, tuple[Way, ...]] = WAYS) -> list[Summands]:
        """Return the ways to read the operation `node` as a sum; none if it adds no two tensors."""
        found = []
        given = {edge.position: (edge, value) for edge, value in self.computed(node)}
        for way in ways.get(self.kinds[node], ()):
            gates = [
                given[place]
                for place in way.gates
                if place in given and self.has_data(given[place][1])
            ]
            terms = [given[place] for place in way.terms if place in given]
            if way.skip in given and (terms or gates):
                edges = tuple(edge for edge, _ in gates)
                found.append(Summands(given[way.skip], (*terms, *gates), edges))
        return found

    def ancestry_of(self, terms: tuple[Term, ...]) -> int:
        """Return the set of all nodes that the terms are computed from, as bits."""
        ancestry = 0
        for _, value in terms:
            ancestry |= self.ancestry[value.node]
        return ancestry

    def skip(self, summands: Summands) -> Skip | None:
        """Return the shortest path back to a tensor that the terms come from, without gates."""
        others = self.ancestry_of(summands.terms)
        pending = [_start(summands)]
        while pending:
            path = pending.pop(0)
            if others >> path.x.node & 1:
                return path
            pending.extend(self._one_step_back(path))
        return None

    def gated_skip(self, summands: Summands, is_residual: Callable[[Skip], bool]) -> Skip | None:
        """Return the shortest path back, through gates, for which `is_residual` is true."""
        pending = [_start(summands)]
        while pending:
            path = pending.pop(0)
            if path.gates and is_residual(path):
                return path
            pending.extend(self._one_step_back_through_gates(path))
        return None

    def _one_step_back(self, path: Skip) -> Iterator[Skip]:
        node = path.x.node
        kind = self.kinds[node]
        inner = [one for one in self.summands(node) if not one.gates]
        if inner:
            if self._is_read_once(path.x):
                for one in inner:
                    terms = (*path.terms, *one.terms)
                    yield path.back(one.skip, sums=(*path.sums, node), terms=terms)
            return
        operations = (*path.operations, node)
        weights = self.weights(operations)
        # An addition that reaches this line adds a parameter or a constant.
        if (
            kind not in ALLOWED_ON_SKIP | {"Add"}
            or weights > 1
            or len(operations) > _MAX_OPERATIONS
        ):
            return
        # Weights are computed from parameters alone. The other input of the operation is its data.
        values = self.computed(node)
        data = [entry for entry in values if self.has_data(entry[1])] or values
        if len(data) == 1:
            yield path.back(data[0], operations=operations)

    def _one_step_back_through_gates(self, path: Skip) -> Iterator[Skip]:
        node = path.x.node
        operations = (*path.operations, node)
        if len(operations) > _MAX_OPERATIONS or len(path.gates + path.sums) > _MAX_GATES:
            return
        if self.kinds[node] in RESHAPES:
            for _, value in self.computed(node):
                yield replace(
                    path, x=value, operations=operations, reshaped=(*path.reshaped, path.x)
                )
            return
        if not all(map(self._is_read_once, (path.x, *path.reshaped))):
            return
        for one in self.summands(node, WAYS_WITHIN_GATED):
            terms, gates = (*path.terms, *one.terms), (*path.gates, *one.gates)
            yield path.back(one.skip, sums=(*path.sums, node), terms=terms, gates=gates)
        data = [entry for entry in self.computed(node) if self.has_data(entry[1])]
        if self.kinds[node] in ALLOWED_ON_GATED_SKIP and len(data) == 1:
            yield path.back(data[0], operations=operations)
        if self.kinds[node] in PRODUCTS | {"Mul"} and len(data) == 2:
            for factor, gate in zip(data, data[::-1], strict=True):
                terms, gates = (*path.terms, gate), (*path.gates, gate[0])
                yield path.back(factor, operations=operations, terms=terms, gates=gates)

    def _is_read_once(self, value: Value) -> bool:
        return len(self.readers[value]) == 1 and value.node not in self.outputs

    def branch(self, skip: Skip) -> Branch:
        """Return all operations between x and the terms that are added to the skip."""
        x = skip.x
        nodes: set[int] = set()
        edges, dominated = [], True
        pending = list(skip.terms)
        while pending:
            edge, value = pending.pop()
            if value == x or value in skip.reshaped:
                edges.append(edge)
            elif not self.ancestry[value.node] >> x.node & 1:
                dominated = dominated and not self.has_data(value)
            elif value.node not in nodes and value.node != x.node:
                nodes.add(value.node)
                pending.extend(self.computed(value.node))
        return Branch(frozenset(nodes), tuple(sorted(set(edges))), dominated)

    def reads(self, skip: Skip) -> list[Edge]:
        """Return the edges by which x is read, in any of its shapes."""
        shapes = (skip.x, *skip.reshaped)
        reshaping = {value.node for value in skip.reshaped}
        edges = (edge for value in shapes for edge in self.readers[value])
        return [edge for edge in edges if edge.node not in reshaping]

    def weights(self, nodes: Iterable[int]) -> int:
        """Return how many weighted maps these nodes contain."""
        return sum(count_weighted_maps(self.kinds[node]) for node in nodes)

    def is_elementary(self, branch: Branch) -> bool:
        """Whether the branch is an element-wise formula without parameters."""
        return all(
            self.kinds[node] in ELEMENTARY and PARAMETER not in self.inputs[node]
            for node in branch.nodes
        )

    def is_on_every_path(self, x: Value, addition: int) -> bool:
        """Whether every path from x to an output goes through `addition`."""
        if x.node in self.outputs:
            return False
        seen, pending = {addition}, [edge.node for edge in self.readers[x]]
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            if node in self.outputs:
                return False
            seen.add(node)
            pending.extend(self.followers.get(node, ()))
        return True


def _start(summands: Summands) -> Skip:
    last, x = summands.skip
    return Skip(summands.skip, x, last, summands.terms, gates=summands.gates)


def _is_source(kind: str, inputs: Inputs) -> bool:
    """Whether data enters the graph here: at a first layer, a lookup, or an earlier tensor."""
    if kind == INPUT or kind in LOOKUPS:
        return True
    if is_custom(kind):
        return not any(value is not None and value is not PARAMETER for value in inputs)
    if kind not in WEIGHTED and kind not in NORMALIZATIONS and "Rnn" not in kind:
        return False
    place = data_position(kind)
    return place < len(inputs) and inputs[place] is None
