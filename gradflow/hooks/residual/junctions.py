"""Residual additions of a forward pass: what gradient skip and branch each send to their input x.

Read from the autograd graph once the pass is over, so that in-place additions stay in place and
nothing of the model changes; which additions are residual is said in `residuals`. Gradients are
caught by hooks on the graph's nodes at the edges into x: what arrives over the skip's edge is s,
over the branch's edges b, over those of further operations that read x the rest; together they are
dL/dx. A factor on the branch (`x + a f(x)`, stochastic depth) is part of the branch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.definition import inner_product
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.residual.additions import ResidualAddition, find_residual_additions
from gradflow.hooks.residual.graph import Edge, Graph, Value, read_graph, shape_of

# A tensor of the graph: the node that made it, and which of the node's outputs it is.
NodeOutput = tuple[Node, int]
# An operation that reads x, and which of its inputs x is.
NodeInput = tuple[Node, int]


@dataclass(frozen=True)
class Junction:
    """A residual addition y = skip(x) + branch(x).

    Fields:
        sequence: the number that autograd gave the addition; it grows in order of execution.
        skip_type: `projection` where the skip has weights, else `identity`.
        x: the tensor that both ways start from.
        skip, branch: the summands; `branch` is None where no single operation made it.
        skip_nodes: the operations on the skip, none for the identity.
        skip_edges, branch_edges, other_edges: where the two ways, and anything else, read x.
    """

    sequence: int
    skip_type: str
    x: NodeOutput
    skip: NodeOutput
    branch: NodeOutput | None
    skip_nodes: tuple[Node, ...]
    skip_edges: tuple[NodeInput, ...]
    branch_edges: tuple[NodeInput, ...]
    other_edges: tuple[NodeInput, ...]


def find_junctions(output: Any, start: int = 0) -> tuple[list[Junction], int]:
    """The residual additions behind `output`, in order of execution, and how many concatenations.

    Only those made since autograd's node number `start` are looked at.
    """
    graph = read_graph(output, start)
    found = [
        _junction(graph, residual)
        for residual in find_residual_additions(graph.structure)
        if _skip_has_shape_of_sum(graph, residual)
    ]
    return sorted(found, key=lambda junction: junction.sequence), graph.structure.kinds.count("Cat")


def _skip_has_shape_of_sum(graph: Graph, residual: ResidualAddition) -> bool:
    """Whether the skip has the shape of the sum: one that is broadcast is a bias."""
    added = shape_of(graph.nodes[residual.addition], 0)
    skip = shape_of(graph.nodes[residual.skip_end.node], residual.skip_end.output)
    # A sum of scalars is a loss of several terms.
    return added is None or skip is None or (added == skip and added != ())


def _junction(graph: Graph, residual: ResidualAddition) -> Junction:
    def made(value: Value) -> NodeOutput:
        return graph.nodes[value.node], value.output

    def readings(edges: Sequence[Edge]) -> tuple[NodeInput, ...]:
        return tuple((graph.nodes[edge.node], edge.position) for edge in edges)

    addition = graph.nodes[residual.addition]
    return Junction(
        sequence=addition._sequence_nr(),
        skip_type="projection" if residual.projection else "identity",
        x=made(residual.x),
        skip=made(residual.skip_end),
        branch=None if residual.branch_end is None else made(residual.branch_end),
        skip_nodes=tuple(graph.nodes[node] for node in residual.skip_nodes),
        skip_edges=readings(residual.skip_edges),
        branch_edges=readings(residual.branch_edges),
        other_edges=readings(residual.other_edges),
    )


def watch_junction(junction: Junction, deliver: Callable[[Tensor], None]) -> None:
    """Call `deliver` with the products of the gradients at x, once the backward pass has them.

    `deliver` gets what `gradient_products` returns. It is not called where a part is missing.
    """
    skip: list[Tensor] = []
    branch: list[Tensor] = []
    others: list[Tensor] = []
    ways = (
        (junction.skip_edges, skip),
        (junction.branch_edges, branch),
        (junction.other_edges, others),
    )
    for edges, parts in ways:
        for node, position in edges:
            _collect_edge(node, position, parts)
    x, index = junction.x

    def at_input(grad_outputs: tuple[Tensor | None, ...]) -> None:
        whole = grad_outputs[index]
        if whole is not None and skip and branch:
            deliver(gradient_products(whole, _sum(skip), _sum(branch), others))
        for parts in (skip, branch, others):
            parts.clear()

    x.register_prehook(at_input)


def _collect_edge(node: Node, position: int, parts: list[Tensor]) -> None:
    def at_edge(grad_inputs: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]) -> None:
        gradient = grad_inputs[position]
        if gradient is not None:
            parts.append(gradient)

    node.register_hook(at_edge)


@torch.no_grad()
def gradient_products(
    whole: Tensor, skip: Tensor, branch: Tensor, others: Sequence[Tensor] = ()
) -> Tensor:
    """Products of the gradients s (skip), b (branch), g = s + b and dL/dx (whole): [7].

    <g,g>, <s,s>, <b,b>, <s,b>, <s,g>, <dL/dx,dL/dx>, <r,r> with r = dL/dx - g - `others`.
    """
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


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
