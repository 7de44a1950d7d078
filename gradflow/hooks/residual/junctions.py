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
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.definition import inner_product
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.reduction.nested import values_of
from gradflow.hooks.residual.additions import ResidualAddition, find_residual_additions
from gradflow.hooks.residual.graph import Edge, Graph, Value, read_graph, shape_of

# A tensor of the graph: the node that computed it, and the index among the node's outputs.
NodeOutput = tuple[Node, int]
# A use of x: the operation that reads it, and the position among its inputs.
NodeInput = tuple[Node, int]


@dataclass(frozen=True)
class Junction:
    """A residual addition y = skip(x) + branch(x).

    Fields:
        sequence: autograd's sequence number of the addition; it grows in order of execution.
        skip_type: `identity`, `projection`, `gated` or `mixed`; see `additions`.
        x: the tensor from which both paths start.
        skip, branch: the summands; None for one that no single operation computed.
        skip_nodes: the operations on the skip; none for the identity.
        skip_edges, branch_edges, other_edges: the reads of x by skip, branch and other operations.
        on_views: operations in place on a view, by their places in the structure. It is a
            residual addition only if they add, which `watch_operation_on_view` tells.
        merged_by: places of others; if all of these add, it is a part of a larger addition.
    """

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


@dataclass(frozen=True)
class Found:
    """What was found in the graph of a forward pass.

    Fields:
        junctions: the residual additions, in order of execution.
        structure: a number that tells the structure of the graph from others.
        concatenations: the number of concatenations.
        other_sums, other_on_views: sequence numbers of the sums of computed tensors that are not
            taken for residual, and of the operations of two tensors in place on a view.
    """

    junctions: list[Junction]
    structure: int
    concatenations: int
    other_sums: list[int]
    other_on_views: list[int]


def find_junctions(output: Any, start: int = 0) -> Found:
    """Find the residual additions of `output`.

    Only nodes from autograd's sequence number `start` on are considered.
    """
    graph = read_graph(output, start)
    additions = find_residual_additions(graph.structure)
    residual = [one for one in additions.residual if _skip_has_shape_of_sum(graph, one)]
    taken = {one.addition for one in residual}

    def others(places: tuple[int, ...]) -> list[int]:
        nodes = [graph.nodes[place] for place in places if place not in taken]
        # A sum of scalars is a loss with several terms.
        return [node._sequence_nr() for node in nodes if shape_of(node, 0) != ()]

    return Found(
        sorted((_junction(graph, one) for one in residual), key=lambda one: one.sequence),
        hash(graph.structure),
        graph.structure.kinds.count("Cat"),
        others(additions.sums),
        others(additions.on_views),
    )


def _skip_has_shape_of_sum(graph: Graph, residual: ResidualAddition) -> bool:
    """Whether the skip has the shape of the sum; if it is broadcast, it is a bias."""
    skip = _shape(graph, residual.skip_end)
    added, *views = (_shape(graph, value) for value in residual.sums)
    if added is None or skip is None:
        return True
    # A sum of scalars is a loss with several terms.
    if added == ():
        return False
    if residual.on_views:
        # The base of a view may have another shape.
        return skip in views or math.prod(skip) == math.prod(added)
    return added == skip


def _shape(graph: Graph, value: Value) -> tuple[int, ...] | None:
    return shape_of(graph.nodes[value.node], value.output)


def _junction(graph: Graph, residual: ResidualAddition) -> Junction:
    def node_output(value: Value | None) -> NodeOutput | None:
        return None if value is None else (graph.nodes[value.node], value.output)

    def node_inputs(edges: Sequence[Edge]) -> tuple[NodeInput, ...]:
        return tuple((graph.nodes[edge.node], edge.position) for edge in edges)

    addition = graph.nodes[residual.addition]
    skip, branch = residual.summands
    # `torch.add(a, b, alpha=c)` adds c b, which no operation computed.
    if getattr(addition, "_saved_alpha", 1) != 1:
        second = graph.structure.inputs[residual.addition][1]
        skip, branch = (None if value == second else value for value in (skip, branch))
    return Junction(
        sequence=addition._sequence_nr(),
        skip_type=residual.skip_type,
        x=(graph.nodes[residual.x.node], residual.x.output),
        skip=node_output(skip),
        branch=node_output(branch),
        skip_nodes=tuple(graph.nodes[node] for node in residual.skip_nodes),
        skip_edges=node_inputs(residual.skip_edges),
        branch_edges=node_inputs(residual.branch_edges),
        other_edges=node_inputs(residual.other_edges),
        on_views={node: graph.nodes[node] for node in residual.on_views},
        merged_by=residual.merged_by,
    )


def watch_junction(
    junction: Junction,
    deliver: Callable[[Tensor], None],
    belongs_to_step: Callable[[], bool],
    products: Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor],
) -> None:
    """Call `deliver` with the `products` at x, once the backward pass has computed the gradients.

    `products` is `gradient_products`, or takes the same.

    It is not called if the gradient of the skip or of the branch is missing, nor in passes that do
    not belong to the step.
    """
    skip: list[Tensor] = []
    branch: list[Tensor] = []
    others: list[Tensor] = []
    paths = (
        (junction.skip_edges, skip),
        (junction.branch_edges, branch),
        (junction.other_edges, others),
    )
    for edges, gradients in paths:
        for node, position in edges:
            _collect_gradient(node, position, gradients, belongs_to_step)
    x, index = junction.x

    def at_input(grad_outputs: tuple[Tensor | None, ...]) -> None:
        if not belongs_to_step():
            return
        whole = grad_outputs[index]
        if whole is not None and whole.is_nested:
            whole = values_of(whole)[0]
        if whole is not None and skip and branch:
            # An operation may have read x in another shape.
            parts = ([one.reshape(whole.shape) for one in part] for part in (skip, branch, others))
            through_skip, through_branch, rest = parts
            deliver(products(whole, _sum(through_skip), _sum(through_branch), rest))
        for gradients in (skip, branch, others):
            gradients.clear()

    x.register_prehook(at_input)


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


def _collect_gradient(
    node: Node, position: int, gradients: list[Tensor], belongs_to_step: Callable[[], bool]
) -> None:
    """Append the gradient that `node` sends over its input `position`, when it has computed it."""

    def at_edge(grad_inputs: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]) -> None:
        gradient = grad_inputs[position]
        if gradient is not None and belongs_to_step():
            gradients.append(values_of(gradient)[0] if gradient.is_nested else gradient)

    node.register_hook(at_edge)


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


def _sum(gradients: list[Tensor]) -> Tensor:
    return gradients[0] if len(gradients) == 1 else torch.stack(gradients).sum(0)
