"""Hooks on nodes of the autograd graph that read the gradients at a residual addition's input x.

One hook before a node serves all additions that want its gradient. In a row of pre-norm blocks the
gradient at the x of one block is also that of the sum of the block before, which its skip passes on
as it is: two hooks an addition are enough, one before the sum and one where the branch reads x.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.reduction.nested import values_of
from gradflow.hooks.residual.junctions import Junction

_Gradients = tuple[Tensor | None, ...]


class NodeHooks:
    """Collects what is to be called with the gradients that come to nodes, and registers it."""

    def __init__(self) -> None:
        self._before: dict[Node, list[Callable[[_Gradients], None]]] = {}

    def before(self, node: Node, function: Callable[[_Gradients], None]) -> None:
        """Call `function` with the gradients of the outputs of `node`."""
        self._before.setdefault(node, []).append(function)

    def register(self) -> None:
        """Register one hook for each node."""
        for node, functions in self._before.items():
            node.register_prehook(functions[0] if len(functions) == 1 else _all_of(functions))
        self._before.clear()


class JunctionWatch:
    """Calls `deliver` with the `products` at x, once a backward pass has computed the gradients.

    `products` is `junctions.gradient_products`, or takes the same.

    It is not called if the gradient of the skip or of the branch is missing, nor in passes that do
    not belong to the step.
    """

    __slots__ = (
        "_belongs",
        "_branch",
        "_deliver",
        "_direct",
        "_others",
        "_products",
        "_skip",
        "_task",
        "_x",
    )

    def __init__(
        self,
        junction: Junction,
        deliver: Callable[[Any], None],
        belongs_to_step: Callable[[], bool],
        products: Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Any],
        hooks: NodeHooks,
    ) -> None:
        self._deliver = deliver
        self._belongs = belongs_to_step
        self._products = products
        self._skip: list[Tensor] = []
        self._branch: list[Tensor] = []
        self._others: list[Tensor] = []
        self._direct = junction.is_direct
        self._task = -1
        if junction.is_direct:
            hooks.before(junction.addition, self._at_sum)
        else:
            self._collect(junction.skip_edges, self._skip)
        self._collect(junction.branch_edges, self._branch)
        if junction.other_edges:
            self._collect(junction.other_edges, self._others)
        node, self._x = junction.x
        hooks.before(node, self._at_input)

    def _collect(self, edges: Sequence[tuple[Node, int]], gradients: list[Tensor]) -> None:
        """Append to `gradients` what nodes send over these of their inputs."""
        belongs = self._belongs
        for node, position in edges:

            def at_edge(sent: _Gradients, _: _Gradients, position: int = position) -> None:
                gradient = sent[position]
                if gradient is not None and belongs():
                    self._begin_pass()
                    gradients.append(values_if_nested(gradient))

            node.register_hook(at_edge)

    def _at_sum(self, arrived: _Gradients) -> None:
        gradient = arrived[0]
        if gradient is not None and self._belongs():
            self._begin_pass()
            self._skip.append(values_if_nested(gradient))

    def _begin_pass(self) -> None:
        """Let go of what another pass has left, which has failed."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            self._let_go()

    def _let_go(self) -> None:
        self._skip.clear()
        self._branch.clear()
        self._others.clear()

    def _at_input(self, arrived: _Gradients) -> None:
        if not self._belongs():
            return
        whole = arrived[self._x]
        if whole is not None and self._skip and self._branch:
            gradients = as_at_input(
                whole, self._skip, self._branch, self._others, is_direct=self._direct
            )
            self._deliver(self._products(*gradients))
        self._let_go()


def values_if_nested(gradient: Tensor) -> Tensor:
    """Return the values of a nested gradient; any other as it is."""
    return values_of(gradient)[0] if gradient.is_nested else gradient


def as_at_input(
    whole: Tensor,
    skip: Tensor | list[Tensor],
    branch: Tensor | list[Tensor],
    others: Tensor | list[Tensor] | None,
    *,
    is_direct: bool,
) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]:
    """Return the gradients at x as the `products` take them: of one shape, added up by path.

    If the skip `is_direct`, its gradient is that of the sum.
    """
    whole = values_if_nested(whole)
    shape = whole.shape
    skip, branch = _sum(skip, shape), _sum(branch, shape)
    if is_direct and skip.dtype is not whole.dtype:
        # As autograd converts it on the way to x.
        if skip.is_complex() and not whole.is_complex():
            skip = skip.real
        skip = skip.to(whole.dtype)
    if not isinstance(others, Tensor):
        return whole, skip, branch, [_in_shape(one, shape) for one in others] if others else ()
    return whole, skip, branch, [_in_shape(others, shape)]


def _all_of(functions: Sequence[Callable[[_Gradients], None]]) -> Callable[[_Gradients], None]:
    def call_all(arrived: _Gradients) -> None:
        for function in functions:
            function(arrived)

    return call_all


def _sum(gradients: Tensor | list[Tensor], shape: torch.Size) -> Tensor:
    if isinstance(gradients, Tensor):
        return _in_shape(gradients, shape)
    if len(gradients) == 1:
        return _in_shape(gradients[0], shape)
    if len(gradients) == 2:  # the same bits in one pass
        return torch.add(*(_in_shape(one, shape) for one in gradients))
    return torch.stack([_in_shape(one, shape) for one in gradients]).sum(0)


def _in_shape(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Return a gradient in the shape of x, which an operation may have read in another one."""
    return gradient if gradient.shape == shape else gradient.reshape(shape)
