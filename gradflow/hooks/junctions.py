"""Residual additions: where a block adds skip(x) to branch(x), and what gradient each sends to x.

Found at run time from the autograd graph of a block's output, so that in-place additions stay in
place and nothing of the model changes. Walking back from the output, the first addition of two
summands that both come from the block's input x is its junction; the summand with the fewer
operations on its way is the skip. Gradients are caught by hooks on the graph's nodes at the edges
into x: what arrives over the skip's edges is s, over the branch's edges b, and s + b = dL/dx.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks import native
from gradflow.hooks.fused import safe_norm
from gradflow.hooks.statistics import inner

_ADDITION = "AddBackward0"
_PARAMETER = "torch::autograd::AccumulateGrad"
# How far the junction may lie behind the block's output: an activation, a dropout, a view or two.
_OPERATIONS_AFTER_ADDITION = 6
# A route with more operations than this is no residual branch of one block.
_OPERATIONS_IN_ROUTE = 1000


@dataclass(frozen=True)
class Route:
    """One summand of the addition, as a way from the block's input x to the addition.

    Fields:
        end: the node that made the summand; x's own node for an identity skip.
        nodes: the operations on the way, x's node and the addition aside.
        edges: (node, index) pairs: the operation that reads x, and which of its inputs x is.
        parametrized: whether an operation on the way has a parameter.
    """

    end: Node
    nodes: frozenset[Node]
    edges: tuple[tuple[Node, int], ...]
    parametrized: bool


@dataclass(frozen=True)
class Junction:
    """A residual addition: its node, and its two routes from x."""

    addition: Node
    skip: Route
    branch: Route

    @property
    def shortcut(self) -> str:
        """`projection` where the skip has parameters, else `identity`."""
        return "projection" if self.skip.parametrized else "identity"


def find_junction(x: Node, y: Node, claimed: set[Node]) -> Junction | None:
    """The residual addition between a block's input node x and its output node y.

    `claimed` holds the additions that belong to blocks inside this one. None where there is none.
    """
    node = y
    for _ in range(_OPERATIONS_AFTER_ADDITION):
        if node is x or node in claimed:
            return None
        inputs = [parent for parent, _ in node.next_functions if parent is not None]
        if node.name() == _ADDITION and len(inputs) == 2:
            return _junction_at(node, x)
        inputs = [parent for parent in inputs if parent.name() != _PARAMETER]
        if len(inputs) != 1:
            return None
        node = inputs[0]
    return None


def _junction_at(addition: Node, x: Node) -> Junction | None:
    routes = []
    for index, (end, _) in enumerate(addition.next_functions):
        if end is x:
            routes.append(Route(x, frozenset(), ((addition, index),), False))
        elif end is not None:
            routes.append(_route(end, x))
    if len(routes) != 2 or not all(route.edges for route in routes):
        return None
    skip, branch = sorted(routes, key=lambda route: len(route.nodes))
    # Two summands that are equally long, or share operations, have no skip among them.
    if len(skip.nodes) == len(branch.nodes) or skip.nodes & branch.nodes:
        return None
    return Junction(addition, skip, branch)


def _route(end: Node, x: Node) -> Route:
    nodes, edges, parametrized = {end}, [], False
    pending = [end]
    while pending:
        node = pending.pop()
        for index, (parent, _) in enumerate(node.next_functions):
            if parent is x:
                edges.append((node, index))
            elif parent is None or parent in nodes:
                continue
            elif parent.name() == _PARAMETER:
                parametrized = True
            elif len(nodes) < _OPERATIONS_IN_ROUTE:
                nodes.add(parent)
                pending.append(parent)
    return Route(end, frozenset(nodes), tuple(edges), parametrized)


@dataclass
class RouteGradients:
    """Collects, during one backward pass, the gradients that reach x over each route."""

    skip: list[Tensor] = field(default_factory=list)
    branch: list[Tensor] = field(default_factory=list)


def watch_junction(
    junction: Junction, x: Node, index: int, deliver: Callable[[Tensor], None]
) -> None:
    """Call `deliver` with the products of the gradients at x, once the backward pass has them.

    `index` says which output of node x the block's input is. `deliver` gets a tensor [5] on the
    gradients' device: <g,g>, <s,s>, <b,b>, <s,b>, <s,g>. It is not called where a part is missing.
    """
    gradients = RouteGradients()
    for route, parts in ((junction.skip, gradients.skip), (junction.branch, gradients.branch)):
        for node, position in route.edges:
            _collect_edge(node, position, parts)

    def at_input(grad_outputs: tuple[Tensor | None, ...]) -> None:
        total = grad_outputs[index]
        if total is not None and gradients.skip and gradients.branch:
            skip, branch = _sum(gradients.skip), _sum(gradients.branch)
            deliver(route_products(total, skip, branch))
        gradients.skip.clear()
        gradients.branch.clear()

    x.register_prehook(at_input)


def _collect_edge(node: Node, position: int, parts: list[Tensor]) -> None:
    def at_edge(grad_inputs: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]) -> None:
        gradient = grad_inputs[position]
        if gradient is not None:
            parts.append(gradient)

    node.register_hook(at_edge)


@torch.no_grad()
def route_products(total: Tensor, skip: Tensor, branch: Tensor) -> Tensor:
    """<g,g>, <s,s>, <b,b>, <s,b>, <s,g> for the gradients g (total), s (skip), b (branch): [5]."""
    products = native.three_products(total.detach(), skip.detach(), branch.detach())
    if products is not None:
        return torch.tensor(products, dtype=torch.float64)
    narrow = total.dtype in (torch.float16, torch.bfloat16)
    if narrow or (total.device.type == "cpu" and float(safe_norm(total)) < 1e-12):
        wide = torch.float32 if total.device.type == "mps" else torch.float64
        total, skip, branch = total.to(wide), skip.to(wide), branch.to(wide)
    pairs = ((total, total), (skip, skip), (branch, branch), (skip, branch), (skip, total))
    return torch.stack([inner(first, second) for first, second in pairs])


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
