"""Hooks that find the residual additions of each forward pass, and record their gradients."""

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.layers import LayerTable, first_tensor
from gradflow.hooks.observation.forward_passes import PendingJunction, PendingPass
from gradflow.hooks.observation.hook import Hook, ModuleHooks
from gradflow.hooks.observation.junction_summary import JunctionSummary
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.processes.layouts import Layouts
from gradflow.hooks.processes.tensors import held_here
from gradflow.hooks.records import JunctionRecord, StepRecord
from gradflow.hooks.reduction.fused import Moments, moments_if_any
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.residual.additions import GATED, IDENTITY, PROJECTION
from gradflow.hooks.residual.junctions import (
    Junction,
    NodeOutput,
    find_junctions,
    gradient_products,
    watch_junction,
    watch_operation_on_view,
)
from gradflow.hooks.residual.module_order import ModuleOrder, may_add
from gradflow.hooks.wrappers import named_modules

# The layer name for additions in the forward of the model itself, whose own name is empty.
MODEL = "(model)"
# An operation in place on a view: the number of its graph's structure, and its place there.
_OnView = tuple[int, int]
# Most of these that are kept in mind; a model whose structure changes has new ones at every step.
_MOST_ON_VIEWS = 10_000


@dataclass
class _Candidate:
    """A residual addition, if the operations `on_views` add, and not all in `merged_by`.

    `kept` is its record once it is named.
    """

    module: str
    entry: JunctionRecord
    layers_on_skip: list[str]
    on_views: list[_OnView]
    merged_by: list[_OnView]
    kept: JunctionRecord | PendingJunction | None = None
    part: Part = Part.WHOLE


@dataclass
class _Pass:
    """A recorded forward pass.

    Its additions have names at once, or, as long as it is not known of an operation in place on a
    view whether it adds, at the end of the backward pass, which tells.
    """

    record: StepRecord | PendingPass
    candidates: list[_Candidate]
    named: bool = False


class JunctionObserver:
    """Adds the residual additions of every forward pass to the record of the step.

    `current_record` gives the record that a module call is to fill, or None if the call is not
    recorded. `backward_passes` tells which passes belong to the step, `layouts` which part of a
    tensor this process has.
    """

    def __init__(
        self,
        layers: LayerTable,
        current_record: Callable[[], StepRecord | PendingPass | None],
        backward_passes: BackwardPasses,
        layouts: Layouts,
    ) -> None:
        self._layers = layers
        self._current_record = current_record
        self._backward_passes = backward_passes
        self._hooks = ModuleHooks()
        self._layouts = layouts
        self._order = ModuleOrder()
        self._outputs: dict[NodeOutput, tuple[str, Moments]] = {}
        self._inputs: dict[NodeOutput, tuple[weakref.ref[Tensor], int]] = {}
        self._summary = JunctionSummary()
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

    def note_output(
        self, args: tuple[Any, ...], output: Tensor, layer: str, output_moments: Moments
    ) -> None:
        """Note the input and output of a layer: the summands of additions are found among them."""
        if output.grad_fn is not None:
            known = (layer, output_moments)
            self._outputs.setdefault((output.grad_fn, output.output_nr), known)
        given = first_tensor(args)
        if given is not None and given.grad_fn is not None:
            made = self._layouts.origin(given.grad_fn, given.output_nr)
            if made not in self._outputs:
                # A weak reference: if autograd does not need the tensor, its memory is released.
                self._inputs.setdefault(made, (weakref.ref(given), given._version))

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
        self._outputs.clear()
        self._inputs.clear()

    def _record(self, record: StepRecord | PendingPass, output: Any) -> None:
        found = find_junctions(output, self._order.start)
        self._summary.add_pass(
            found.concatenations,
            sum(map(self._is_outside_cells, found.other_sums)),
            sum(map(self._is_outside_cells, found.other_on_views)),
        )
        if len(self._adds) > _MOST_ON_VIEWS:
            self._adds.clear()
        taken = [one for one in found.junctions if self._may_be_residual(one, found.structure)]
        candidates = [self._candidate(one, found.structure) for one in taken]
        seen = _Pass(record, candidates)
        if all(view in self._adds for one in candidates for view in one.on_views):
            self._name(seen)
        for junction, candidate in zip(taken, candidates, strict=True):
            self._watch(junction, candidate, seen)

    def _may_be_residual(self, junction: Junction, structure: int) -> bool:
        module = self._order.module_at(junction.sequence)
        # The other sums within a recurrent cell are what its gates are computed from.
        if module is None or (module in self._order.cells and junction.skip_type != GATED):
            return False
        return all(self._adds.get((structure, place), True) for place in junction.on_views)

    def _candidate(self, junction: Junction, structure: int) -> _Candidate:
        module = self._order.module_at(junction.sequence)
        assert module is not None
        skip, branch = self._moments_of(junction.skip), self._moments_of(junction.branch)
        entry = JunctionRecord(junction.skip_type, skip, branch)
        on_views, merged_by = (
            [(structure, place) for place in places]
            for places in (junction.on_views, junction.merged_by)
        )
        made = [(node, 0) for node in junction.skip_nodes]
        on_skip = [self._outputs[one][0] for one in made if one in self._outputs]
        return _Candidate(module, entry, on_skip, on_views, merged_by)

    def _watch(self, junction: Junction, candidate: _Candidate, seen: _Pass) -> None:
        for view, node in zip(candidate.on_views, junction.on_views.values(), strict=True):
            if view not in self._adds:
                watch_operation_on_view(node, partial(self._adds.__setitem__, view))

        def deliver(products: Tensor) -> None:
            self._backward_passes.call_at_end(partial(self._add, seen, candidate, products))

        belongs_to_step = self._backward_passes.belongs_to_step
        watch_junction(junction, deliver, belongs_to_step, self._products_at(junction, candidate))

    def _add(self, seen: _Pass, candidate: _Candidate, products: Tensor) -> None:
        if seen.record.closed:
            return  # the step has ended, and its gradients are left out too
        self._name(seen)
        if candidate.kept is not None:
            candidate.kept.add_products(products, candidate.part)

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
                one.kept = seen.record.add_junction(name, one.entry)
                if one.entry.skip_type in (IDENTITY, PROJECTION):
                    for layer in one.layers_on_skip:
                        self._layers.mark_projection(layer)

    def _is_outside_cells(self, sequence: int) -> bool:
        module = self._order.module_at(sequence)
        return module is not None and module not in self._order.cells

    def _all_add(self, views: list[_OnView]) -> bool:
        return all(self._adds.get(view, False) for view in views)

    def _products_at(
        self, junction: Junction, candidate: _Candidate
    ) -> Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]:
        """Return what computes the `gradient_products` of what this process has."""
        layouts = self._layouts
        if layouts.parts == 1:
            return gradient_products
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

    def _moments_of(self, made: NodeOutput | None) -> Moments | None:
        """Return the moments of a summand; None if its tensor is gone or was changed in place."""
        if made is None:
            return None
        if made in self._outputs:
            return self._outputs[made][1]
        reference, version = self._inputs.get(made, (None, 0))
        tensor = None if reference is None else reference()
        if tensor is None or tensor._version != version or tensor.dim() < 2:
            return None
        axis = 2 if tensor.dim() == 3 else 1
        seen = moments_if_any(held_here(tensor), axis)
        if seen is not None:
            seen.part = self._layouts.of(tensor).part(axis)
        return seen
