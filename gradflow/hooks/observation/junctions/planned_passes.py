"""Records the residual additions of a pass whose graph is known; all is known but the tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.observation.forward_passes import PendingJunction, PendingPass
from gradflow.hooks.observation.junctions.summands import Summands
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import JunctionRecord, Products
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.usual import UsualGradients
from gradflow.hooks.reduction.deferred.waiting import DeferredProducts, Habit, Usual
from gradflow.hooks.residual.junctions import gradient_products
from gradflow.hooks.residual.planned import JunctionPlan, PlannedPass

_current_task = torch._C._current_graph_task_id


class _PlannedRecord:
    """What a pass with a `JunctionPlan` adds to a record.

    Fields:
        record, kept: the record, and that of each addition.
        products: by backward pass those that it has computed, with the number of the addition.
    """

    __slots__ = ("kept", "products", "record")

    def __init__(
        self,
        record: StepRecord | PendingPass,
        kept: list[JunctionRecord | PendingJunction],
    ) -> None:
        self.record = record
        self.kept = kept
        self.products: dict[int, list[tuple[int, Products | DeferredProducts]]] = {}


def record_planned(
    record: StepRecord | PendingPass,
    nodes: Sequence[Node],
    planned: JunctionPlan,
    habits: Sequence[Habit],
    summands: Summands,
    passes: BackwardPasses,
    reductions: Reductions,
) -> None:
    """Add to the record the additions of a pass, which are those of `planned`.

    `nodes` are those of its graph, `habits` what is known of the gradients at each addition.
    """
    kept = []
    for one in planned.junctions:
        skip = branch = None
        if (at := one.skip) is not None:
            skip = summands.moments_of((nodes[at[0]], at[1]), one.skips)
        if (at := one.branch) is not None:
            branch = summands.moments_of((nodes[at[0]], at[1]), one.branches)
        entry = JunctionRecord(one.skip_type, skip, branch)
        kept.append(record.add_junction(one.name, entry))
    seen = _PlannedRecord(record, kept)

    def multiply(
        number: int, whole: Tensor, skip: Tensor, branch: Tensor, others: Sequence[Tensor]
    ) -> None:
        task = _current_task()
        products = seen.products.get(task)
        if products is None:
            products = seen.products[task] = []
            passes.call_at_end(_add_planned, seen, task)
        given = whole, skip, branch
        noted = None if others else _as_usual(habits[number].usual, given)
        if noted is None:
            products.append((number, products_of(reductions, habits[number], *given, others)))
        else:
            products.append((number, noted[-1]))
            reductions.note_usual_gradients(noted)

    PlannedPass(planned, nodes, passes.belongs_to_step, multiply)


def _add_planned(seen: _PlannedRecord, task: int) -> None:
    found = seen.products.pop(task, [])
    if seen.record.closed:
        return
    for number, products in found:
        known = products.products if isinstance(products, DeferredProducts) else products
        if known is not None:
            seen.kept[number].add_products(known)


def products_of(
    reductions: Reductions,
    habit: Habit,
    whole: Tensor,
    skip: Tensor,
    branch: Tensor,
    others: Sequence[Tensor],
) -> Tensor | DeferredProducts:
    """Return the `gradient_products`: at once or deferred."""
    if others or whole.is_complex():
        return gradient_products(whole, skip, branch, others)
    return reductions.multiply((whole, skip, branch), habit, gradient_products)


def _as_usual(
    usual: Usual | None, gradients: tuple[Tensor, Tensor, Tensor]
) -> UsualGradients | None:
    """Return gradients of one shape as they wait if they are as usual; None if not."""
    whole, skip, branch = gradients
    if usual is None or not (type(whole) is type(skip) is type(branch) is Tensor):
        return None
    try:
        if whole.shape != usual.shape:
            return None
        versions = whole._version, skip._version, branch._version
        addresses = whole.data_ptr(), skip.data_ptr(), branch.data_ptr()
    except RuntimeError:  # a tensor without a version or an address
        return None
    return gradients, versions, addresses, usual, gradient_products, DeferredProducts()
