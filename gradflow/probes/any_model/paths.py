"""`gradflow.probes.paths`: how much of the gradient flows along paths with few or many branches."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.nn import functional as F

from gradflow.hooks.wrappers import unwrapped
from gradflow.probes.any_model.passes import Addition, first_pass, in_evaluation_mode

if TYPE_CHECKING:
    import pandas as pd

Loss = Callable[[Any, Any], Tensor]
_Gradients = tuple[Tensor | None, ...]


def paths(
    model: nn.Module, inputs: Any, targets: Any, loss: Loss = F.cross_entropy
) -> "pd.DataFrame":
    """Split the gradient where the residual stream begins by how many branches a path takes.

        shares = gradflow.probes.paths(model, images, labels)
        shares.share.cumsum()  # of the gradient that takes at most so many branches

    n residual additions make 2^n paths: each takes the skip or the branch of every addition (Veit
    et al. 2016, Residual networks behave like ensembles of relatively shallow networks). With x
    the tensor that the first addition's skip and branch read, g_k is the gradient with respect to
    x along all paths of k branches, at the activations of the whole forward pass. The g_k add up
    to the gradient g. They are exact, and take n + 1 backward passes down to x.

    The additions are those that the tracer finds (`run.junctions`), in any architecture; a
    transformer's layer has two. Those in place on a part of a tensor are left out. The model runs
    once, in evaluation mode. Its weights, `grad`, modes and buffers stay as they are, and its
    inputs too.

    Args:
        model: any module with residual additions; wrappers such as `DistributedDataParallel` are
            seen through.
        inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        targets: what `loss` compares the output with.
        loss: called with what the model returns and with `targets`; returns a scalar.

    Returns: a row per `length` k = 0 ... n: `paths`, n! / (k! (n - k)!), the ways to choose k of n
    branches; `gradient_norm`, the norm of g_k; `share`, <g_k, g> / <g, g>, which add up to 1
    and may be negative, missing if g is 0.

    Raises `gradflow.probes.NotMeasurableError` if the model has no residual addition.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, and only this needs it

    model = unwrapped(model)[0]
    with in_evaluation_mode(model), torch.enable_grad():
        found = first_pass(model, inputs)
        by_length = _by_length(loss(found.output, targets), found.start, found.additions)
    n = len(by_length) - 1
    wide = [one.detach().cpu().double().flatten() for one in by_length]
    whole = torch.stack(wide).sum(0)
    squared = float(whole @ whole)
    return pd.DataFrame(
        {
            "length": range(n + 1),
            "paths": [float(math.comb(n, length)) for length in range(n + 1)],
            "gradient_norm": [float(one.norm()) for one in wide],
            "share": [float(one @ whole) / squared if squared else math.nan for one in wide],
        }
    )


class _Delay:
    """Holds back the gradients that one operation sends over the edges of branches.

    In pass k it sends on what came in pass k - 1, or k - m over an edge that lies in m branches
    of nested additions. So in pass k each tensor has the gradient along paths that take k branches.
    """

    def __init__(self, positions: Counter[int]) -> None:
        self._positions = positions
        self._waiting: dict[int, list[Tensor]] = {}
        self.is_reached = False

    def __call__(self, arriving: _Gradients, _: _Gradients) -> _Gradients:
        sent = list(arriving)
        for position, branches in self._positions.items():
            gradient = arriving[position]
            if gradient is None:
                continue
            self.is_reached = True
            waiting = self._waiting.setdefault(position, [torch.zeros_like(gradient)] * branches)
            waiting.append(gradient)
            sent[position] = waiting.pop(0)
        return tuple(sent)


def _by_length(value: Tensor, start: GradientEdge, additions: Sequence[Addition]) -> list[Tensor]:
    """The gradient of `value` at `start` by the number of branches, from none to all."""
    positions: dict[Node, Counter[int]] = {}
    for addition in additions:
        for node, position in addition.junction.branch_edges:
            positions.setdefault(node, Counter())[position] += 1
    delays = {node: _Delay(counted) for node, counted in positions.items()}
    handles = [node.register_hook(delay) for node, delay in delays.items()]
    try:
        by_length = [_gradient(value, start, torch.ones_like(value))]
        # Additions that lie beside the way from the loss to the start are on no path.
        on_the_way = sum(
            any(delays[node].is_reached for node, _ in addition.junction.branch_edges)
            for addition in additions
        )
        nothing = torch.zeros_like(value)
        by_length += [_gradient(value, start, nothing) for _ in range(on_the_way)]
    finally:
        for handle in handles:
            handle.remove()
    return by_length


def _gradient(value: Tensor, start: GradientEdge, arriving: Tensor) -> Tensor:
    return torch.autograd.grad(value, start, arriving, retain_graph=True)[0]
