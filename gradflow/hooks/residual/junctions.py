"""Residual additions of a forward pass: the gradients that skip and branch send to their input x.

The additions are found in the autograd graph after the pass, so that the model is not changed and
in-place additions are possible; `additions` defines which are residual. Hooks on the graph's nodes
read the gradients that arrive at x: s over the skip's edge, b over the branch's edges, and the rest
over the edges of other operations that read x. Their sum is dL/dx. A factor on the branch
(`x + a f(x)`, stochastic depth) is part of the branch.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.definition import inner_product
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.residual.additions import (
    Additions,
    ResidualAddition,
    find_residual_additions,
)
from gradflow.hooks.residual.graph import Edge, Graph, Structure, Value, shape_of
from gradflow.hooks.residual.known_graph import GraphReader

# A tensor of the graph: the node that computed it, and the index among the node's outputs.
NodeOutput = tuple[Node, int]
# A use of x: the operation that reads it, and the position among its inputs.
NodeInput = tuple[Node, int]


class Junction(NamedTuple):
    """A residual addition y = skip(x) + branch(x).

    Fields:
        place: of the addition in the structure.
        addition: its node.
        sequence: autograd's sequence number of the addition; it grows in order of execution.
        skip_type: `identity`, `projection`, `gated` or `mixed`; see `additions`.
        x: the tensor from which both paths start.
        skip, branch: the summands; None for one that no single operation computed.
        skip_nodes: the operations on the skip; none for the identity.
        skip_edges, branch_edges, other_edges: the reads of x by skip, branch and other operations.
        on_views: operations in place on a view, by their places in the structure. It is a
            residual addition only if they add, which `watch_operation_on_view` tells.
        merged_by: places of others; if all of these add, it is a part of a larger addition.
        is_direct: whether the skip is x itself, without a factor: the gradient that it sends to x
            is then that of the sum.
    """

    place: int
    addition: Node
    sequence: int
    skip_type: str
    x: NodeOutput
    skip: NodeOutput | None
    branch: NodeOutput | None
    skip_nodes: tuple[Node, ...]
    skip_edges: tuple[NodeInput, ...]
    branch_edges: tuple[NodeInput, ...]
    other_edges: tuple[NodeInput, ...]
    on_views: dict[int, Node]
    merged_by: tuple[int, ...]
    is_direct: bool


@dataclass(frozen=True)
class Found:
    """What was found in the graph of a forward pass.

    Fields:
        junctions: the residual additions, in order of execution.
        graph, additions: the graph, and the sums in it.
    """

    junctions: list[Junction]
    graph: Graph
    additions: Additions

    @cached_property
    def concatenations(self) -> int:
        """The number of concatenations."""
        return self.graph.structure.kinds.count("Cat")

    @cached_property
    def other_sums(self) -> list[int]:
        """The sequence numbers of the sums of computed tensors that are not taken for residual."""
        return self._others(self.additions.sums)

    @cached_property
    def other_on_views(self) -> list[int]:
        """Those of the operations of two tensors in place on a view."""
        return self._others(self.additions.on_views)

    def _others(self, places: tuple[int, ...]) -> list[int]:
        taken = {one.place for one in self.junctions}
        nodes = [self.graph.nodes[place] for place in places if place not in taken]
        # A sum of scalars is a loss with several terms.
        return [node._sequence_nr() for node in nodes if shape_of(node, 0) != ()]


class JunctionFinder:
    """Finds the residual additions of one forward pass after the other.

    The graph is analysed when its structure has changed.
    """

    def __init__(self) -> None:
        self._reader = GraphReader()
        self._last: tuple[Structure, Additions] | None = None

    def find(self, output: Any, start: int = 0) -> Found:
        """Find the residual additions of `output`.

        Only nodes from autograd's sequence number `start` on are considered.
        """
        return self.find_in(self.read(output, start))

    def read(self, output: Any, start: int = 0) -> Graph:
        """Read the graph of `output`; its structure is the same object as before if it is equal."""
        return self._reader.read(output, start)

    def let_go_of_nodes(self) -> None:
        """Keep no node of the graph that was read last."""
        self._reader = GraphReader()

    def find_in(self, graph: Graph) -> Found:
        """Find the residual additions in a graph that `read` returned."""
        junctions = [_junction(graph, one) for one in self._in_shape(graph)]
        junctions.sort(key=_sequence)
        assert self._last is not None
        return Found(junctions, graph, self._last[1])

    def places_in(self, graph: Graph) -> list[int]:
        """The places of the residual additions in a graph, in the order in which they are known."""
        return [one.addition for one in self._in_shape(graph)]

    def _in_shape(self, graph: Graph) -> list[ResidualAddition]:
        """The residual additions whose skip has the shape of the sum."""
        # The sum of one addition is often the skip of the next.
        shapes: dict[Value, tuple[int, ...] | None] = {}

        def shape(value: Value) -> tuple[int, ...] | None:
            if value not in shapes:
                shapes[value] = shape_of(graph.nodes[value.node], value.output)
            return shapes[value]

        return [one for one in self._residual(graph) if _skip_has_shape_of_sum(shape, one)]

    def _residual(self, graph: Graph) -> Sequence[ResidualAddition]:
        if self._last is None or self._last[0] is not graph.structure:
            self._last = graph.structure, find_residual_additions(graph.structure)
        return self._last[1].residual


def find_junctions(output: Any, start: int = 0) -> Found:
    """Find the residual additions of a single forward pass, as `JunctionFinder.find` does."""
    return JunctionFinder().find(output, start)


def _sequence(junction: Junction) -> int:
    return junction.sequence


def _skip_has_shape_of_sum(
    shape: Callable[[Value], tuple[int, ...] | None], residual: ResidualAddition
) -> bool:
    """Whether the skip has the shape of the sum; if it is broadcast, it is a bias."""
    skip = shape(residual.skip_end)
    added, *views = map(shape, residual.sums)
    if added is None or skip is None:
        return True
    # A sum of scalars is a loss with several terms.
    if added == ():
        return False
    if residual.on_views:
        # The base of a view may have another shape.
        return skip in views or math.prod(skip) == math.prod(added)
    return added == skip


def _junction(graph: Graph, residual: ResidualAddition) -> Junction:
    nodes = graph.nodes
    addition = nodes[residual.addition]
    skip, branch = residual.summands
    (first, *more) = residual.skip_edges
    is_direct = (
        first.node == residual.addition
        and not more
        and graph.structure.kinds[residual.addition] == "Add"
    )
    # `torch.add(a, b, alpha=c)` adds c b, which no operation computed.
    if alpha_of(addition) != 1:
        second = graph.structure.inputs[residual.addition][1]
        skip, branch = (None if value == second else value for value in (skip, branch))
        is_direct = is_direct and first.position == 0
    return Junction(
        residual.addition,
        addition,
        addition._sequence_nr(),
        residual.skip_type,
        (nodes[residual.x.node], residual.x.output),
        None if skip is None else (nodes[skip.node], skip.output),
        None if branch is None else (nodes[branch.node], branch.output),
        tuple([nodes[node] for node in residual.skip_nodes]),
        _node_inputs(nodes, residual.skip_edges),
        _node_inputs(nodes, residual.branch_edges),
        _node_inputs(nodes, residual.other_edges),
        {node: nodes[node] for node in residual.on_views},
        residual.merged_by,
        is_direct,
    )


def alpha_of(addition: Node) -> Any:
    """The factor of the second summand of an addition."""
    return getattr(addition, "_saved_alpha", 1)


def _node_inputs(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[NodeInput, ...]:
    return tuple([(nodes[edge.node], edge.position) for edge in edges])


def watch_operation_on_view(node: Node, deliver: Callable[[bool], None]) -> None:
    """Tell `deliver` whether the operation `node`, in place on a view, adds to the view.

    If it does, the gradient of the view's base is that of the result, bit for bit. It is not called
    while the gradient of the other operand is zero, or one is not finite, for neither tells.
    """

    def at_node(
        grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]
    ) -> None:
        base, other, *_ = grad_inputs
        result = grad_outputs[0]
        if base is None or other is None or result is None:
            return
        # Tensor subclasses may not know these operations.
        with suppress(RuntimeError):
            if bool(result.isfinite().all()) and bool(other.any()):
                deliver(torch.equal(base, result))

    node.register_hook(at_node)


@torch.no_grad()
def gradient_products(
    whole: Tensor, skip: Tensor, branch: Tensor, others: Sequence[Tensor] = ()
) -> Tensor:
    """Return products of the gradients s (skip), b (branch), g = s + b and dL/dx (whole): [7].

    <g,g>, <s,s>, <b,b>, <s,b>, <s,g>, <dL/dx,dL/dx>, <r,r> with r = dL/dx - g - `others`.
    """
    if whole.is_complex():
        # Pairs of real numbers: the inner product is the real part of the complex one.
        whole, skip, branch = map(_as_real, (whole, skip, branch))
        others = list(map(_as_real, others))
    if not others:
        products = cpu.junction_products(whole.detach(), skip.detach(), branch.detach())
        if products is not None:
            return torch.tensor(products, dtype=torch.float64)
    narrow = whole.dtype in (torch.float16, torch.bfloat16)
    if narrow or (whole.device.type == "cpu" and float(safe_norm(whole)) < 1e-12):
        wide = torch.float32 if whole.device.type == "mps" else torch.float64
        whole, skip, branch = whole.to(wide), skip.to(wide), branch.to(wide)
    both = skip + branch
    rest = whole - both
    for other in others:
        rest -= other
    pairs = (
        (both, both),
        (skip, skip),
        (branch, branch),
        (skip, branch),
        (skip, both),
        (whole, whole),
        (rest, rest),
    )
    return torch.stack([inner_product(first, second) for first, second in pairs])


def _as_real(gradient: Tensor) -> Tensor:
    return torch.view_as_real(gradient.resolve_conj())
