"""Hooks that find the residual additions of each forward pass, and record their gradients."""

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.layers import LayerTable, first_tensor
from gradflow.hooks.observation.forward_passes import PendingJunction, PendingPass
from gradflow.hooks.observation.hook import Hook, ModuleHooks
from gradflow.hooks.observation.junction_summary import JunctionSummary
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.processes.layouts import Layouts
from gradflow.hooks.processes.tensors import held_here
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import JunctionRecord, Products, Seen
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.usual import UsualGradients
from gradflow.hooks.reduction.deferred.waiting import DeferredProducts, Habit, Usual
from gradflow.hooks.reduction.fused import moments_if_any
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.residual.additions import GATED, IDENTITY, PROJECTION
from gradflow.hooks.residual.gradients import JunctionWatch, NodeHooks
from gradflow.hooks.residual.graph import Graph
from gradflow.hooks.residual.junctions import (
    Found,
    Junction,
    JunctionFinder,
    NodeOutput,
    gradient_products,
    watch_operation_on_view,
)
from gradflow.hooks.residual.module_order import ModuleOrder, may_add
from gradflow.hooks.residual.planned import JunctionPlan, PlannedPass
from gradflow.hooks.wrappers import named_modules

_current_task = torch._C._current_graph_task_id
# The layer name for additions in the forward of the model itself, whose own name is empty.
MODEL = "(model)"
# An operation in place on a view: the number of its graph's structure, and its place there.
_OnView = tuple[int, int]
# Most of these that are kept in mind; a model whose structure changes has new ones at every step.
_MOST_ON_VIEWS = 10_000


@dataclass(slots=True)
class _Candidate:
    """A residual addition, if the operations `on_views` add, and not all in `merged_by`.

    `kept` is its record once it has its `name`. `habit` is what is known of its gradients.
    """

    module: str
    entry: JunctionRecord
    layers_on_skip: tuple[str, ...]
    on_views: tuple[_OnView, ...]
    merged_by: tuple[_OnView, ...]
    habit: Habit
    kept: JunctionRecord | PendingJunction | None = None
    part: Part = Part.WHOLE
    name: str = ""


@dataclass
class _Pass:
    """A recorded forward pass.

    Its additions have names at once, or, as long as it is not known of an operation in place on a
    view whether it adds, at the end of the backward pass, which tells.
    """

    record: StepRecord | PendingPass
    candidates: list[_Candidate]
    named: bool = False


@dataclass
class _Plan:
    """What follows from the structure of a graph, and from the modules that made its nodes.

    It holds as long as both are the same as in the pass before.

    Fields:
        found: as in the pass that it was made in.
        order: all that tells the modules, see `ModuleOrder.so_far`.
        structure: a number that tells the structure from others.
        modules: by the place of an addition, the module that made it; None if it is in no module,
            or in a recurrent cell and not gated.
        counts: of concatenations, of other sums, and of other changes of views.
        habits: what is known of the gradients at an addition, by its place.
        passes: how many passes had it.
        planned: from the second pass on, what need not be found again; None if something must.
        places: those of the additions found, in the order of `JunctionFinder.places_in`.
    """

    found: Found
    order: object
    structure: int
    modules: dict[int, str | None]
    counts: tuple[int, int, int]
    habits: dict[int, Habit]
    passes: int = 0
    planned: JunctionPlan | None = None
    places: list[int] = field(default_factory=list)


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


class Made(Protocol):
    """The output of a layer: its moments, and the names of the layers that return it."""

    moments: Seen
    layers: tuple[str, ...]


class JunctionObserver:
    """Adds the residual additions of every forward pass to the record of the step.

    `current_record` gives the record that a module call is to fill, or None if the call is not
    recorded. `backward_passes` tells which passes belong to the step, `layouts` which part of a
    tensor this process has. `reductions` reduces summands, and products of gradients.

    Fields:
        made: the outputs of layers, by `_key`.
    """

    def __init__(
        self,
        layers: LayerTable,
        current_record: Callable[[], StepRecord | PendingPass | None],
        backward_passes: BackwardPasses,
        layouts: Layouts,
        reductions: Reductions,
    ) -> None:
        self._layers = layers
        self._current_record = current_record
        self._backward_passes = backward_passes
        self._hooks = ModuleHooks()
        self._layouts = layouts
        self._reductions = reductions
        self._summands = Habit("a summand of a residual addition")
        self._order = ModuleOrder()
        # The keys are numbers, which are no work for the garbage collector.
        self.made: dict[int, Made] = {}
        # Other inputs of layers, and their versions.
        self._inputs: dict[int, weakref.ref[Tensor]] = {}
        self._versions: dict[int, int] = {}
        self._summary = JunctionSummary()
        self._finder = JunctionFinder()
        self._plan: _Plan | None = None
        # Whether an operation in place on a view, known by graph and place, is an addition.
        self._adds: dict[_OnView, bool] = {}

    def attach(self, model: nn.Module, hook: Callable[[Callable[..., None]], Hook]) -> None:
        """Register the hooks, each made by `hook`, on the modules that have none yet."""

        def register(name: str, module: nn.Module) -> list[RemovableHandle]:
            enter, leave = hook(partial(self._enter, name)), hook(partial(self._leave, name))
            return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

        adding = (
            (name or MODEL, module)
            for name, module in named_modules(model)
            if module is model or may_add(module)
        )
        self._hooks.keep_on(adding, register)

    def detach(self) -> None:
        """Remove the hooks registered by `attach`, and no others."""
        self._hooks.remove()

    def forget(self) -> None:
        """Drop all data of the forward pass that has just run."""
        self._order.forget()
        self._clear_tensors()

    def note_output(self, args: tuple[Any, ...], output: Tensor, observed: Made) -> None:
        """Note the input and output of a layer: the summands of additions are found among them."""
        node = output.grad_fn
        if node is not None:
            self.made.setdefault(_key(node, output.output_nr), observed)
        self.note_input(args)

    def note_input(self, args: tuple[Any, ...]) -> None:
        """Note the input of a layer."""
        given = args[0] if args and type(args[0]) is Tensor else None
        if given is None or (node := given.grad_fn) is None:
            given = first_tensor(args)
            node = None if given is None else given.grad_fn
        if given is not None and node is not None:
            place = given.output_nr
            if self._layouts.parts > 1:
                node, place = self._layouts.origin(node, place)
            key = _key(node, place)
            if key not in self.made and key not in self._inputs:
                # A weak reference: if autograd does not need the tensor, its memory is released.
                self._inputs[key] = weakref.ref(given)
                self._versions[key] = given._version

    def summary(self) -> dict[str, Any]:
        """Return the entry of `run.json` on residual additions."""
        return self._summary.entry()

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the summary."""
        return self._summary.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts in `state`."""
        self._summary.load_state_dict(state)

    def _enter(self, name: str, module: nn.Module, _: Any) -> None:
        if self._current_record() is not None:
            self._order.enter(name, module)

    def _leave(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        record = self._current_record()
        if record is not None and self._order.leave(name):
            if first_tensor(output) is not None:
                self._record(record, output)
            self._clear_tensors()

    def _clear_tensors(self) -> None:
        self.made.clear()
        self._inputs.clear()
        self._versions.clear()

    def _record(self, record: StepRecord | PendingPass, output: Any) -> None:
        graph, plan = self._finder.read(output, self._order.start), self._plan
        if (
            plan is not None
            and plan.planned is not None
            and plan.planned.holds(graph)
            and plan.order == self._order.so_far()
            and plan.places == self._finder.places_in(graph)
        ):
            self._summary.add_pass(*plan.counts)
            self._record_planned(record, graph, plan, plan.planned)
            return
        found = self._finder.find_in(graph)
        plan = self._plan_for(found)
        self._summary.add_pass(*plan.counts)
        if len(self._adds) > _MOST_ON_VIEWS:
            self._adds.clear()
        taken = [one for one in found.junctions if self._may_be_residual(one, plan)]
        candidates = [self._candidate(one, plan) for one in taken]
        seen = _Pass(record, candidates)
        if all(view in self._adds for one in candidates for view in one.on_views):
            self._name(seen)
        hooks = NodeHooks()
        for junction, candidate in zip(taken, candidates, strict=True):
            self._watch(junction, candidate, seen, hooks)
        hooks.register()
        plan.passes += 1
        if plan.passes > 1 and self._layouts.parts == 1:
            self._plan_ahead(plan, graph, taken, candidates)

    def _plan_ahead(
        self, plan: _Plan, graph: Graph, taken: list[Junction], candidates: list[_Candidate]
    ) -> None:
        """Keep what later passes with the same graph need, unless it is not known beforehand."""
        if not any(one.on_views or one.merged_by for one in candidates):
            plan.planned = JunctionPlan(graph, [one.name for one in candidates], taken)
            plan.places = self._finder.places_in(graph)

    def _record_planned(
        self, record: StepRecord | PendingPass, graph: Graph, plan: _Plan, planned: JunctionPlan
    ) -> None:
        """Add to the record the additions of a pass of which all is known but the tensors."""
        nodes, kept = graph.nodes, []
        for one in planned.junctions:
            skip = branch = None
            if (at := one.skip) is not None:
                skip = self._moments_of((nodes[at[0]], at[1]), one.skips)
            if (at := one.branch) is not None:
                branch = self._moments_of((nodes[at[0]], at[1]), one.branches)
            entry = JunctionRecord(one.skip_type, skip, branch)
            kept.append(record.add_junction(one.name, entry))
        seen = _PlannedRecord(record, kept)
        habits = [plan.habits[one.place] for one in planned.junctions]
        passes = self._backward_passes

        def multiply(
            number: int, whole: Tensor, skip: Tensor, branch: Tensor, others: Sequence[Tensor]
        ) -> None:
            task = _current_task()
            products = seen.products.get(task)
            if products is None:
                products = seen.products[task] = []
                passes.call_at_end(self._add_planned, seen, task)
            given = whole, skip, branch
            noted = None if others else _as_usual(habits[number].usual, given)
            if noted is None:
                products.append((number, self._products(habits[number], *given, others)))
            else:
                products.append((number, noted[-1]))
                self._reductions.note_usual_gradients(noted)

        PlannedPass(planned, nodes, passes.belongs_to_step, multiply)

    def _add_planned(self, seen: _PlannedRecord, task: int) -> None:
        found = seen.products.pop(task, [])
        if seen.record.closed:
            return
        for number, products in found:
            known = products.products if isinstance(products, DeferredProducts) else products
            if known is not None:
                seen.kept[number].add_products(known)

    def _plan_for(self, found: Found) -> _Plan:
        """Return the plan for the graph in `found`: that of the pass before, or a new one."""
        order, known = self._order.so_far(), self._plan
        if (
            known is None
            or known.found.graph.structure is not found.graph.structure
            or known.order != order
            or known.modules.keys() != {one.place for one in found.junctions}
        ):
            known = self._plan = _Plan(
                Found([], Graph(found.graph.structure, []), found.additions),
                order,
                hash(found.graph.structure),
                {one.place: self._module_of(one) for one in found.junctions},
                (
                    found.concatenations,
                    sum(map(self._is_outside_cells, found.other_sums)),
                    sum(map(self._is_outside_cells, found.other_on_views)),
                ),
                {one.place: Habit(str(self._module_of(one))) for one in found.junctions},
            )
        return known

    def _module_of(self, junction: Junction) -> str | None:
        module = self._order.module_at(junction.sequence)
        # The other sums within a recurrent cell are what its gates are computed from.
        return None if module in self._order.cells and junction.skip_type != GATED else module

    def _may_be_residual(self, junction: Junction, plan: _Plan) -> bool:
        if plan.modules[junction.place] is None:
            return False
        return not junction.on_views or all(
            self._adds.get((plan.structure, place), True) for place in junction.on_views
        )

    def _candidate(self, junction: Junction, plan: _Plan) -> _Candidate:
        module, structure = plan.modules[junction.place], plan.structure
        assert module is not None
        skip, branch = (
            self._moments_of(one, self._summands) for one in (junction.skip, junction.branch)
        )
        entry = JunctionRecord(junction.skip_type, skip, branch)
        on_skip = tuple(
            [
                self.made[key].layers[0]
                for key in (_key(node, 0) for node in junction.skip_nodes)
                if key in self.made
            ]
        )
        on_views = tuple([(structure, place) for place in junction.on_views])
        merged_by = tuple([(structure, place) for place in junction.merged_by])
        habit = plan.habits[junction.place]
        return _Candidate(module, entry, on_skip, on_views, merged_by, habit)

    def _watch(
        self, junction: Junction, candidate: _Candidate, seen: _Pass, hooks: NodeHooks
    ) -> None:
        for view, node in zip(candidate.on_views, junction.on_views.values(), strict=True):
            if view not in self._adds:
                watch_operation_on_view(node, partial(self._adds.__setitem__, view))
        passes = self._backward_passes
        JunctionWatch(
            junction,
            partial(passes.call_at_end, self._add, seen, candidate),
            passes.belongs_to_step,
            self._products_at(junction, candidate),
            hooks,
        )

    def _add(self, seen: _Pass, candidate: _Candidate, products: Tensor | DeferredProducts) -> None:
        if seen.record.closed:
            return  # the step has ended, and its gradients are left out too
        self._name(seen)
        known = products if isinstance(products, Tensor) else products.products
        if candidate.kept is not None and known is not None:
            candidate.kept.add_products(known, candidate.part)

    def _name(self, seen: _Pass) -> None:
        """Add to the record those candidates of the pass that are known to be additions."""
        if seen.named:
            return
        seen.named = True
        counts: Counter[str] = Counter()
        for one in seen.candidates:
            if self._all_add(one.on_views) and not (one.merged_by and self._all_add(one.merged_by)):
                counts[one.module] += 1
                number = counts[one.module]
                name = one.module if number == 1 else f"{one.module}+{number}"
                self._summary.names.add(name)
                one.name = name
                one.kept = seen.record.add_junction(name, one.entry)
                if one.entry.skip_type in (IDENTITY, PROJECTION):
                    for layer in one.layers_on_skip:
                        self._layers.mark_projection(layer)

    def _is_outside_cells(self, sequence: int) -> bool:
        module = self._order.module_at(sequence)
        return module is not None and module not in self._order.cells

    def _all_add(self, views: tuple[_OnView, ...]) -> bool:
        return not views or all(self._adds.get(view, False) for view in views)

    def _products_at(
        self, junction: Junction, candidate: _Candidate
    ) -> Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor | DeferredProducts]:
        """Return what computes the `gradient_products` of what this process has."""
        layouts = self._layouts
        if layouts.parts == 1:
            return partial(self._products, candidate.habit)
        x = layouts.of_node(junction.x[0])

        def products(
            whole: Tensor, skip: Tensor, branch: Tensor, others: Sequence[Tensor]
        ) -> Tensor:
            gradients = [whole, skip, branch, *others]
            candidate.part = layouts.part_of_products(gradients, x)
            if candidate.part is Part.UNKNOWN:
                return torch.zeros(7, dtype=torch.float64)  # left out when records are joined
            whole, skip, branch, *rest = (held_here(one) for one in gradients)
            return gradient_products(whole, skip, branch, rest)

        return products

    def _products(
        self, habit: Habit, whole: Tensor, skip: Tensor, branch: Tensor, others: Sequence[Tensor]
    ) -> Tensor | DeferredProducts:
        if others or whole.is_complex():
            return gradient_products(whole, skip, branch, others)
        return self._reductions.multiply((whole, skip, branch), habit, gradient_products)

    def _moments_of(self, made: NodeOutput | None, habit: Habit) -> Seen | None:
        """Return the moments of a summand; None if its tensor is gone or was changed in place.

        `habit` is what is known of such summands.
        """
        if made is None:
            return None
        key = _key(*made)
        output = self.made.get(key)
        if output is not None:
            return output.moments
        reference = self._inputs.get(key)
        tensor = None if reference is None else reference()
        if tensor is None or tensor._version != self._versions[key] or tensor.dim() < 2:
            return None
        axis = 2 if tensor.dim() == 3 else 1
        if self._layouts.parts == 1:
            usual = habit.usual
            if (
                usual is not None
                and type(tensor) is Tensor
                and tensor.shape == usual.shape
                and usual.axis == axis
            ):
                with suppress(RuntimeError):  # a tensor without a version or an address
                    return self._reductions.note_usual(tensor, usual)
            return self._reductions.reduce(held_here(tensor), axis, False, habit)
        seen = moments_if_any(held_here(tensor), axis)
        if seen is not None:
            seen.part = self._layouts.of(tensor).part(axis)
        return seen


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


def _key(node: Node, output: int) -> int:
    """A number that tells an output of a node from the others of a pass."""
    return node._sequence_nr() << 16 | output
