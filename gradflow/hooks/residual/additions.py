"""Finds the residual additions in the structure of an autograd graph.

An addition y = skip(x) + branch(x) is residual if both summands are computed from one tensor x, and
if these conditions hold:

- The skip is x itself, or x through at most one weighted map (a projection) with its normalization,
  resampling, reshaping and constant factors. A path with an activation is not a skip. x is the
  nearest such tensor from which the other summand is computed.
- The branch is more than an element-wise formula of x: it contains a parameter or an operation that
  is not element-wise. If the skip is not the identity, the branch contains more weighted maps than
  the skip.
- x is the main input of the branch: all data enters the branch through x. If other data enters too
  (e.g. a memory that is attended to), then every path from x to an output passes the addition, and
  the branch does not add x to other data or multiply it with other data. So a position or time
  embedding that is added again in every layer is not the x of a residual addition.
- Skip and branch do not select different parts of x, as in a coupling layer or a recurrent layer.
- A projection is not added to what a gate is computed from, as in a recurrent cell.

Where no such skip is found, others are looked for:

- Gated: y = a x + branch(x), where a is computed from x, as in highway networks (Srivastava et al.
  2015) and in a GRU cell whose state is x. All data must enter gate and branch through x. What the
  gate sends back to x is part of the branch.
- Mixed, in hyper-connections (Zhu et al. 2024): a is a matrix, not made of queries and keys, that
  mixes the streams x. Or one matrix makes the branch's input and the streams that are passed on; x
  is then its product with the streams, and skip and branch read different ones of these.

If nothing else reads the inner sum of (x + f(x)) + g(x), it is one addition with the branch f + g.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from gradflow.hooks.residual.gated import GatedSkips
from gradflow.hooks.residual.graph import PARAMETER, Edge, Structure, Value
from gradflow.hooks.residual.operations import (
    ALLOWED_ON_SKIP,
    GATES,
    PRODUCTS,
    SELECTIONS,
    count_weighted_maps,
)
from gradflow.hooks.residual.paths import Branch, Paths, Skip, Summands
from gradflow.hooks.residual.sums import FIRST_IS_SUMMAND, ON_VIEW

IDENTITY, PROJECTION, GATED, MIXED = "identity", "projection", "gated", "mixed"


@dataclass(frozen=True)
class ResidualAddition:
    """A residual addition y = skip(x) + branch(x) of a `Structure`.

    Fields:
        addition: the node of the addition.
        skip_type: `MIXED` if the skip is a mixture of streams, `GATED` if data computed from x
            multiplies the skip, `PROJECTION` if the skip has weights, otherwise `IDENTITY`.
        x: the tensor from which both paths start.
        skip_end: the skip as it enters the addition.
        sums: the sum; if it is in place on a view, the base of the view, and then the views of it.
        summands: skip and branch as they are added; None for one that no operation computed, such
            as a branch that is itself a sum whose terms were added to the skip one by one.
        skip_nodes: the operations on the skip; none for the identity.
        skip_edges, branch_edges: the edges by which the two paths read x.
        other_edges: the edges by which other operations read x.
        on_views: operations in place on a view, which this addition takes for additions.
        merged_by: those of a larger addition; if all of them add, this one is a part of it.
    """

    addition: int
    skip_type: str
    x: Value
    skip_end: Value
    sums: tuple[Value, ...]
    summands: tuple[Value | None, Value | None]
    skip_nodes: tuple[int, ...]
    skip_edges: tuple[Edge, ...]
    branch_edges: tuple[Edge, ...]
    other_edges: tuple[Edge, ...]
    on_views: tuple[int, ...] = ()
    merged_by: tuple[int, ...] = ()


@dataclass(frozen=True)
class Additions:
    """The sums of computed tensors in a `Structure`, without those within a residual addition.

    Fields:
        residual: the residual additions.
        sums, on_views: the nodes of all sums, and of all operations of two tensors in place on a
            view, which may be sums.
    """

    residual: tuple[ResidualAddition, ...]
    sums: tuple[int, ...]
    on_views: tuple[int, ...]


@lru_cache(maxsize=8)
def find_residual_additions(structure: Structure) -> Additions:
    """Return all residual additions, in the order in which the graph was built.

    Most models have the same structure at every step, so the latest few results are cached.
    """
    return _Search(structure).additions()


class _Search:
    def __init__(self, structure: Structure) -> None:
        self.paths = Paths(structure)
        self.gated = GatedSkips(structure, self.paths)
        self.kinds, self.inputs = structure.kinds, structure.inputs

    def additions(self) -> Additions:
        found: dict[int, ResidualAddition] = {}
        looked_at: set[int] = set()
        for node in range(len(self.kinds)):
            summands = self.paths.summands(node)
            if not summands:
                continue
            looked_at.add(node)
            skip = self._skip_of(node, summands)
            if skip is None:
                continue
            found[node] = self._residual(node, skip)
            on_views = found[node].on_views
            for inner in skip.sums:
                looked_at.discard(inner)
                if inner in found and found[inner].x == skip.x:
                    if on_views:
                        found[inner] = replace(found[inner], merged_by=on_views)
                    else:
                        del found[inner]
        changes = tuple(node for node in sorted(looked_at) if self.kinds[node] == ON_VIEW)
        sums = tuple(node for node in sorted(looked_at) if self.kinds[node] != ON_VIEW)
        return Additions(tuple(found.values()), sums, changes)

    def _skip_of(self, addition: int, summands: list[Summands]) -> Skip | None:
        skips = [
            skip for one in summands if not one.gates and (skip := self.paths.skip(one)) is not None
        ]
        # The first of the shortest of those with the fewest weights.
        skip = min(
            skips,
            key=lambda skip: (self.paths.weights(skip.operations), len(skip.operations)),
            default=None,
        )
        if skip is not None:
            branch = self.paths.branch(skip)
            if self._is_residual(addition, skip, branch):
                return skip
            if self.gated.is_mixed(skip, branch):
                return replace(skip, mixed=True)
            # Beside an element-wise formula or a projection, the other summand may be a gated skip.
            if not self.paths.is_elementary(branch) and not self.paths.weights(skip.operations):
                return None
        return self._gated_skip_of(summands)

    def _gated_skip_of(self, summands: list[Summands]) -> Skip | None:
        skips = [
            skip
            for one in summands
            if (skip := self.paths.gated_skip(one, self.gated.is_gated)) is not None
        ]
        return min(skips, key=lambda skip: len(skip.operations), default=None)

    def _residual(self, addition: int, skip: Skip) -> ResidualAddition:
        branch = self.paths.branch(skip)
        known = {skip.last, *branch.edges}
        on_views = (node for node in (addition, *skip.sums) if self.kinds[node] == ON_VIEW)
        return ResidualAddition(
            addition=addition,
            skip_type=self._type_of(skip),
            x=skip.x,
            skip_end=skip.x if skip.sums and not skip.operations else skip.end[1],
            sums=(Value(addition, 0), *self._views_of(addition)),
            summands=self._summands(addition, skip),
            skip_nodes=skip.operations,
            skip_edges=(skip.last,),
            branch_edges=branch.edges,
            other_edges=tuple(edge for edge in self.paths.reads(skip) if edge not in known),
            on_views=tuple(on_views),
        )

    def _type_of(self, skip: Skip) -> str:
        if skip.mixed or any(self.kinds[edge.node] in PRODUCTS for edge in skip.gates):
            return MIXED
        if skip.gates:
            return GATED
        weighted = any(self._has_weights(node) for node in skip.operations)
        return PROJECTION if weighted else IDENTITY

    def _views_of(self, addition: int) -> list[Value]:
        if self.kinds[addition] != ON_VIEW:
            return []
        readers = self.paths.readers.get(Value(addition, 0), [])
        return [Value(edge.node, 0) for edge in readers if self.kinds[edge.node] == "AsStrided"]

    def _summands(self, addition: int, skip: Skip) -> tuple[Value | None, Value | None]:
        (edge, end), kind = skip.end, self.kinds[addition]
        if kind == "Add":
            if skip.sums:
                return None if skip.gates or skip.operations else skip.x, None
            return end, self.inputs[addition][1 - edge.position]
        first = kind in FIRST_IS_SUMMAND and edge.position == 0 and not skip.sums
        return end if first else None, None

    def _has_weights(self, node: int) -> bool:
        """Whether an operation on a skip has weights, even frozen or computed ones."""
        inputs = self.inputs[node]
        given = len(self.paths.computed(node))
        kind = self.kinds[node]
        return count_weighted_maps(kind) > 0 or (
            kind != "Add" and (PARAMETER in inputs or given > 1)
        )

    def _is_residual(self, addition: int, skip: Skip, branch: Branch) -> bool:
        weights = self.paths.weights(branch.nodes) + count_weighted_maps(self.kinds[addition])
        on_skip = self.paths.weights(skip.operations)
        if not branch.edges or (self.paths.is_elementary(branch) and not weights):
            return False
        if skip.operations and weights <= on_skip:
            return False
        if on_skip and (
            all(self.kinds[node] in ALLOWED_ON_SKIP for node in branch.nodes)
            or self._is_read_by_gates_alone(addition)
        ):
            return False
        if self.kinds[skip.last.node] in SELECTIONS and all(
            self.kinds[edge.node] in SELECTIONS for edge in branch.edges
        ):
            return False
        if branch.dominated:
            return True
        return not self._mixes_x_with_other_data(skip.x, branch) and self.paths.is_on_every_path(
            skip.x, addition
        )

    def _is_read_by_gates_alone(self, addition: int) -> bool:
        """Whether the sum, with constants added, is what a gate is computed from."""
        readers = self.paths.followers.get(addition, [])
        while len(readers) == 1 and self._adds_a_constant(readers[0]):
            readers = self.paths.followers.get(readers[0], [])
        return bool(readers) and all(self.kinds[node] in GATES for node in readers)

    def _adds_a_constant(self, node: int) -> bool:
        return self.kinds[node] in ("Add", "Sub") and len(self.paths.computed(node)) == 1

    def _mixes_x_with_other_data(self, x: Value, branch: Branch) -> bool:
        """Whether the branch adds x, or a linear map of it, to unrelated data, or multiplies them.

        Data is related to x if one is computed from the other.
        """
        ancestry = self.paths.ancestry
        before = ancestry[x.node]
        images = {x.node}
        for node in sorted(branch.nodes):
            given = {value.node: value for _, value in self.paths.computed(node)}
            if not given.keys() & images:
                continue
            data = [one for one, value in given.items() if self.paths.has_data(value)]
            if self.kinds[node] in ("Add", "Mul") and not all(
                ancestry[one] >> x.node & 1 or before >> one & 1 for one in data
            ):
                return True
            if len(data) == 1 and self.kinds[node] in ALLOWED_ON_SKIP:
                images.add(node)
        return False
