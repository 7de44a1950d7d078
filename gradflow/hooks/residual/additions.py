"""Finds the residual additions in the structure of an autograd graph.

An addition y = skip(x) + branch(x) is residual if both summands are computed from one tensor x, and
if these conditions hold:

- The skip is x itself, or x through at most one weighted map (a projection) with its normalization,
  resampling, reshaping and constant factors. A path with an activation, or with a gate that depends
  on the data, is not a skip. x is the nearest such tensor from which the other summand is computed.
- The branch is more than an element-wise formula of x: it contains a parameter or an operation that
  is not element-wise. If the skip is not the identity, the branch contains more weighted maps than
  the skip.
- x is the main input of the branch: all data enters the branch through x. If other data enters too
  (e.g. a memory that is attended to), then every path from x to an output passes the addition, and
  the branch does not add x to other data or multiply it with other data. So a position or time
  embedding that is added again in every layer is not the x of a residual addition.
- Skip and branch do not select different parts of x, as in a coupling layer or a recurrent layer.

If nothing else reads the inner sum of (x + f(x)) + g(x), it is one addition with the branch f + g.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from gradflow.hooks.residual.graph import INPUT, PARAMETER, Edge, Inputs, Structure, Value
from gradflow.hooks.residual.operations import (
    ALLOWED_ON_SKIP,
    ELEMENTARY,
    LOOKUPS,
    NORMALIZATIONS,
    SELECTIONS,
    WEIGHTED,
    count_weighted_maps,
    data_position,
    is_custom,
)

# A path with more operations than this is not a skip.
_MAX_OPERATIONS_ON_SKIP = 16


@dataclass(frozen=True)
class ResidualAddition:
    """A residual addition y = skip(x) + branch(x) of a `Structure`.

    Fields:
        addition: the node of the addition.
        x: the tensor from which both paths start.
        skip_end, branch_end: the summands; `branch_end` is None if the branch is itself a sum whose
            terms were added to the skip one by one.
        skip_nodes: the operations on the skip; none for the identity.
        skip_edges, branch_edges: the edges by which the two paths read x.
        other_edges: the edges by which other operations read x.
        projection: whether the skip has weights.
    """

    addition: int
    x: Value
    skip_end: Value
    branch_end: Value | None
    skip_nodes: tuple[int, ...]
    skip_edges: tuple[Edge, ...]
    branch_edges: tuple[Edge, ...]
    other_edges: tuple[Edge, ...]
    projection: bool


@lru_cache(maxsize=8)
def find_residual_additions(structure: Structure) -> tuple[ResidualAddition, ...]:
    """Return all residual additions, in the order in which the graph was built.

    Most models have the same structure at every step, so the latest few results are cached.
    """
    return _Search(structure).residuals()


@dataclass(frozen=True)
class _Skip:
    """A path from one summand of an addition back to x.

    `sums` are the other additions on the path, `terms` the tensors that they add to the skip.
    """

    x: Value
    last: Edge
    operations: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    terms: tuple[tuple[Edge, Value], ...] = ()


@dataclass(frozen=True)
class _Branch:
    nodes: frozenset[int]
    edges: tuple[Edge, ...]
    dominated: bool


class _Search:
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

    def residuals(self) -> tuple[ResidualAddition, ...]:
        found: dict[int, ResidualAddition] = {}
        for node, kind in enumerate(self.kinds):
            if kind != "Add":
                continue
            values = [value for value in self.inputs[node] if self._is_computed(value)]
            if len(values) == 2 and values[0] != values[1]:
                residual, merged = self._residual_at(node)
                if residual is not None:
                    for inner in merged:
                        if inner in found and found[inner].x == residual.x:
                            del found[inner]
                    found[node] = residual
        return tuple(found.values())

    def _residual_at(self, addition: int) -> tuple[ResidualAddition | None, tuple[int, ...]]:
        skips = [
            (skip, position)
            for position in (0, 1)
            if (skip := self._skip(addition, position)) is not None
        ]
        if not skips:
            return None, ()
        skip, position = min(skips, key=lambda entry: (len(entry[0].operations), entry[1]))
        end, other = self._value(addition, position), self._value(addition, 1 - position)
        terms = ((Edge(addition, 1 - position), other), *skip.terms)
        branch = self._branch(skip.x, terms)
        if not self._is_residual(addition, skip, branch):
            return None, ()
        known = {skip.last, *branch.edges}
        residual = ResidualAddition(
            addition=addition,
            x=skip.x,
            skip_end=skip.x if skip.sums and not skip.operations else end,
            branch_end=None if skip.terms else other,
            skip_nodes=skip.operations,
            skip_edges=(skip.last,),
            branch_edges=branch.edges,
            other_edges=tuple(edge for edge in self.readers[skip.x] if edge not in known),
            projection=any(self._has_weights(node) for node in skip.operations),
        )
        return residual, skip.sums

    def _has_weights(self, node: int) -> bool:
        """Whether an operation on a skip has weights, even frozen or computed ones."""
        inputs = self.inputs[node]
        given = sum(map(self._is_computed, inputs))
        kind = self.kinds[node]
        return count_weighted_maps(kind) > 0 or (
            kind != "Add" and (PARAMETER in inputs or given > 1)
        )

    def _skip(self, addition: int, position: int) -> _Skip | None:
        """The shortest path from a summand back to a tensor that the other summand comes from."""
        other = self.ancestry[self._value(addition, 1 - position).node]
        pending = [_Skip(self._value(addition, position), Edge(addition, position))]
        while pending:
            path = pending.pop(0)
            if other >> path.x.node & 1:
                return path
            pending.extend(self._paths_one_step_back(path))
        return None

    def _paths_one_step_back(self, path: _Skip) -> Iterator[_Skip]:
        node = path.x.node
        kind, inputs = self.kinds[node], self.inputs[node]
        values = [
            (Edge(node, position), value)
            for position, value in enumerate(inputs)
            if value is not None and self._is_computed(value)
        ]
        if kind == "Add" and len(values) == 2:
            if len(self.readers[path.x]) == 1 and node not in self.outputs:
                for (edge, value), term in zip(values, values[::-1], strict=True):
                    sums, terms = (*path.sums, node), (*path.terms, term)
                    yield _Skip(value, edge, path.operations, sums, terms)
            return
        operations = (*path.operations, node)
        weights = sum(count_weighted_maps(self.kinds[one]) for one in operations)
        # An addition that reaches this line adds a parameter or a constant.
        if (
            kind not in ALLOWED_ON_SKIP | {"Add"}
            or weights > 1
            or len(operations) > _MAX_OPERATIONS_ON_SKIP
        ):
            return
        # Weights are computed from parameters alone. The other input of the operation is its data.
        data = [entry for entry in values if self.ancestry[entry[1].node] & self.sources] or values
        if len(data) == 1:
            edge, value = data[0]
            yield _Skip(value, edge, operations, path.sums, path.terms)

    def _branch(self, x: Value, terms: tuple[tuple[Edge, Value], ...]) -> _Branch:
        """Return all operations between x and the summands `terms`."""
        nodes: set[int] = set()
        edges, dominated = [], True
        pending = list(terms)
        while pending:
            edge, value = pending.pop()
            if value == x:
                edges.append(edge)
            elif not self.ancestry[value.node] >> x.node & 1:
                dominated = dominated and not self.ancestry[value.node] & self.sources
            elif value.node not in nodes and value.node != x.node:
                nodes.add(value.node)
                pending.extend(
                    (Edge(value.node, position), given)
                    for position, given in enumerate(self.inputs[value.node])
                    if given is not None and self._is_computed(given)
                )
        return _Branch(frozenset(nodes), tuple(sorted(set(edges))), dominated)

    def _is_residual(self, addition: int, skip: _Skip, branch: _Branch) -> bool:
        if not branch.edges or self._is_elementary(branch):
            return False
        weights = sum(count_weighted_maps(self.kinds[node]) for node in branch.nodes)
        on_skip = sum(count_weighted_maps(self.kinds[node]) for node in skip.operations)
        if skip.operations and weights <= on_skip:
            return False
        if on_skip and all(self.kinds[node] in ALLOWED_ON_SKIP for node in branch.nodes):
            return False
        if self.kinds[skip.last.node] in SELECTIONS and all(
            self.kinds[edge.node] in SELECTIONS for edge in branch.edges
        ):
            return False
        if branch.dominated:
            return True
        return not self._mixes_x_with_other_data(skip.x, branch) and self._is_on_every_path(
            skip.x, addition
        )

    def _is_elementary(self, branch: _Branch) -> bool:
        return all(
            self.kinds[node] in ELEMENTARY and PARAMETER not in self.inputs[node]
            for node in branch.nodes
        )

    def _mixes_x_with_other_data(self, x: Value, branch: _Branch) -> bool:
        """Whether the branch adds x, or a linear map of it, to unrelated data, or multiplies them.

        Data is related to x if one is computed from the other.
        """
        before = self.ancestry[x.node]
        images = {x.node}
        for node in sorted(branch.nodes):
            given = {
                value.node for value in self.inputs[node] if value and self._is_computed(value)
            }
            if not given & images:
                continue
            data = [one for one in given if self.ancestry[one] & self.sources]
            if self.kinds[node] in ("Add", "Mul") and not all(
                self.ancestry[one] >> x.node & 1 or before >> one & 1 for one in data
            ):
                return True
            if len(data) == 1 and self.kinds[node] in ALLOWED_ON_SKIP:
                images.add(node)
        return False

    def _is_on_every_path(self, x: Value, addition: int) -> bool:
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

    @cached_property
    def followers(self) -> dict[int, list[int]]:
        """For each node, the nodes that read its outputs."""
        followers: dict[int, list[int]] = {}
        for value, edges in self.readers.items():
            followers.setdefault(value.node, []).extend(edge.node for edge in edges)
        return followers

    def _value(self, node: int, position: int) -> Value:
        value = self.inputs[node][position]
        assert value is not None
        return value

    @staticmethod
    def _is_computed(value: Value | None) -> bool:
        return value is not None and value is not PARAMETER


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
