"""Hooks that find the residual additions of each forward pass, and record their gradients."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.layers import LayerTable, first_tensor
from gradflow.hooks.observation.forward_passes import PendingPass
from gradflow.hooks.observation.hook import Hook, ModuleHooks
from gradflow.hooks.observation.junctions.candidates import (
    Candidate,
    KnownAdditions,
    ObservedPass,
    OnView,
)
from gradflow.hooks.observation.junctions.planned_passes import products_of, record_planned
from gradflow.hooks.observation.junctions.summands import Summands, key_of
from gradflow.hooks.observation.junctions.summary import JunctionSummary
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.processes.layouts import Layouts
from gradflow.hooks.processes.tensors import held_here
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import JunctionRecord
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import DeferredProducts, Habit
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.residual.additions import GATED, IDENTITY, PROJECTION
from gradflow.hooks.residual.gradients import JunctionWatch, NodeHooks
from gradflow.hooks.residual.graph import Graph
from gradflow.hooks.residual.junctions import (
    Found,
    Junction,
    JunctionFinder,
    gradient_products,
    watch_operation_on_view,
)
from gradflow.hooks.residual.module_order import ModuleOrder, may_add
from gradflow.hooks.residual.planned import JunctionPlan
from gradflow.hooks.wrappers import named_modules

# The layer name for additions in the forward of the model itself, whose own name is empty.
MODEL = "(model)"
# Most of these that are kept in mind; a model whose structure changes has new ones at every step.
_MOST_ON_VIEWS = 10_000


class JunctionObserver:
    """Adds the residual additions of every forward pass to the record of the step.

    `current_record` gives the record that a module call is to fill, or None if the call is not
    recorded. `backward_passes` tells which passes belong to the step, `layouts` which part of a
    tensor this process has. `reductions` reduces summands, and products of gradients.

    Fields:
        summands: takes the outputs and inputs of layers.
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
        self.summands = Summands(layouts, reductions)
        self._habit = Habit("a summand of a residual addition")
        self._order = ModuleOrder()
        self._summary = JunctionSummary()
        self._finder = JunctionFinder()
        self._plan: KnownAdditions | None = None
        # Whether an operation in place on a view, known by graph and place, is an addition.
        self._adds: dict[OnView, bool] = {}

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
        self.summands.clear()

    def let_go_of_nodes(self) -> None:
        """Keep no node of a graph: the next one is read anew."""
        self._finder.let_go_of_nodes()

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
            self.summands.clear()

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
            habits = [plan.habits[one.place] for one in plan.planned.junctions]
            given = self.summands, self._backward_passes, self._reductions
            record_planned(record, graph.nodes, plan.planned, habits, *given)
            return
        found = self._finder.find_in(graph)
        plan = self._plan_for(found)
        self._summary.add_pass(*plan.counts)
        if len(self._adds) > _MOST_ON_VIEWS:
            self._adds.clear()
        taken = [one for one in found.junctions if self._may_be_residual(one, plan)]
        candidates = [self._candidate(one, plan) for one in taken]
        seen = ObservedPass(record, candidates)
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
        self, plan: KnownAdditions, graph: Graph, taken: list[Junction], candidates: list[Candidate]
    ) -> None:
        """Keep what later passes with the same graph need, unless it is not known beforehand."""
        if not any(one.on_views or one.merged_by for one in candidates):
            plan.planned = JunctionPlan(graph, [one.name for one in candidates], taken)
            plan.places = self._finder.places_in(graph)

    def _plan_for(self, found: Found) -> KnownAdditions:
        """Return the plan for the graph in `found`: that of the pass before, or a new one."""
        order, known = self._order.so_far(), self._plan
        if (
            known is None
            or known.found.graph.structure is not found.graph.structure
            or known.order != order
            or known.modules.keys() != {one.place for one in found.junctions}
        ):
            known = self._plan = KnownAdditions(
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

    def _may_be_residual(self, junction: Junction, plan: KnownAdditions) -> bool:
        if plan.modules[junction.place] is None:
            return False
        return not junction.on_views or all(
            self._adds.get((plan.structure, place), True) for place in junction.on_views
        )

    def _candidate(self, junction: Junction, plan: KnownAdditions) -> Candidate:
        module, structure = plan.modules[junction.place], plan.structure
        assert module is not None
        moments_of, made = self.summands.moments_of, self.summands.made
        skip, branch = (
            moments_of(junction.skip, self._habit),
            moments_of(junction.branch, self._habit),
        )
        entry = JunctionRecord(junction.skip_type, skip, branch)
        on_skip = tuple(
            [
                made[key].layers[0]
                for key in (key_of(node, 0) for node in junction.skip_nodes)
                if key in made
            ]
        )
        on_views = tuple([(structure, place) for place in junction.on_views])
        merged_by = tuple([(structure, place) for place in junction.merged_by])
        habit = plan.habits[junction.place]
        return Candidate(module, entry, on_skip, on_views, merged_by, habit)

    def _watch(
        self, junction: Junction, candidate: Candidate, seen: ObservedPass, hooks: NodeHooks
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

    def _add(
        self, seen: ObservedPass, candidate: Candidate, products: Tensor | DeferredProducts
    ) -> None:
        if seen.record.closed:
            return  # the step has ended, and its gradients are left out too
        self._name(seen)
        known = products if isinstance(products, Tensor) else products.products
        if candidate.kept is not None and known is not None:
            candidate.kept.add_products(known, candidate.part)

    def _name(self, seen: ObservedPass) -> None:
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

    def _all_add(self, views: tuple[OnView, ...]) -> bool:
        return not views or all(self._adds.get(view, False) for view in views)

    def _products_at(
        self, junction: Junction, candidate: Candidate
    ) -> Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor | DeferredProducts]:
        """Return what computes the `gradient_products` of what this process has."""
        layouts = self._layouts
        if layouts.parts == 1:
            return partial(products_of, self._reductions, candidate.habit)
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
