"""Hooks that find the residual additions of each forward pass, and record their gradients."""

import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.layers import LayerTable, first_tensor
from gradflow.hooks.observation.forward_passes import PendingPass
from gradflow.hooks.observation.hook import Hook, ModuleHooks
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.records import JunctionRecord, StepRecord
from gradflow.hooks.reduction.fused import Moments, moments
from gradflow.hooks.residual.junctions import Junction, NodeOutput, find_junctions, watch_junction
from gradflow.hooks.residual.module_order import ModuleOrder, may_add
from gradflow.hooks.wrappers import named_modules

# The layer name for additions in the forward of the model itself, whose own name is empty.
MODEL = "(model)"


class JunctionObserver:
    """Adds the residual additions of every forward pass to the record of the step.

    `current_record` gives the record that a module call is to fill, or None if the call is not
    recorded. `backward_passes` tells which passes belong to the step.
    """

    def __init__(
        self,
        layers: LayerTable,
        current_record: Callable[[], StepRecord | PendingPass | None],
        backward_passes: BackwardPasses,
    ) -> None:
        self._layers = layers
        self._current_record = current_record
        self._backward_passes = backward_passes
        self._hooks = ModuleHooks()
        self._order = ModuleOrder()
        self._outputs: dict[NodeOutput, tuple[str, Moments]] = {}
        self._inputs: dict[NodeOutput, tuple[weakref.ref[Tensor], int]] = {}
        self._passes = 0
        self._names: set[str] = set()
        self._concatenations = 0

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
            made = (given.grad_fn, given.output_nr)
            if made not in self._outputs:
                # A weak reference: if autograd does not need the tensor, its memory is released.
                self._inputs.setdefault(made, (weakref.ref(given), given._version))

    def summary(self) -> dict[str, Any]:
        """Return the entry of `run.json` on residual additions."""
        if self._passes == 0:
            sentence = "no forward pass was recorded"
        elif self._names:
            sentence = f"{len(self._names)} found"
        elif self._concatenations:
            sentence = "none found: the model concatenates instead of adding"
        else:
            sentence = "none found: the model has no skip connections"
        return {
            "found": len(self._names),
            "sentence": sentence,
            "passes": self._passes,
            "concatenations": self._concatenations,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the summary."""
        return {
            "passes": self._passes,
            "names": sorted(self._names),
            "concatenations": self._concatenations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts in `state`."""
        self._passes, self._concatenations = state["passes"], state["concatenations"]
        self._names = set(state["names"])

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
        junctions, concatenations = find_junctions(output, self._order.start)
        self._passes += 1
        self._concatenations = max(self._concatenations, concatenations)
        counts: Counter[str] = Counter()
        for junction in junctions:
            module = self._order.module_at(junction.sequence)
            if module is None:
                continue
            counts[module] += 1
            layer = module if counts[module] == 1 else f"{module}+{counts[module]}"
            self._names.add(layer)
            self._watch(record, layer, junction)

    def _watch(self, record: StepRecord | PendingPass, layer: str, junction: Junction) -> None:
        for node in junction.skip_nodes:
            if (node, 0) in self._outputs:
                self._layers.mark_projection(self._outputs[node, 0][0])
        branch = None if junction.branch is None else self._moments_of(junction.branch)
        entry = JunctionRecord(junction.skip_type, self._moments_of(junction.skip), branch)
        kept = record.add_junction(layer, entry)
        watch_junction(
            junction,
            lambda products: self._backward_passes.call_at_end(
                partial(kept.add_products, products)
            ),
            self._backward_passes.belongs_to_step,
        )

    def _moments_of(self, made: NodeOutput) -> Moments | None:
        """Return the moments of a summand; None if its tensor is gone or was changed in place."""
        if made in self._outputs:
            return self._outputs[made][1]
        reference, version = self._inputs.get(made, (None, 0))
        tensor = None if reference is None else reference()
        if tensor is None or tensor._version != version or tensor.dim() < 2:
            return None
        return moments(tensor, 2 if tensor.dim() == 3 else 1)
