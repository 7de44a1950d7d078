"""Records the outputs of layers that are not as they were in the calls before, of whatever kind."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from gradflow.hooks.layers import LayerTable, layer_outputs
from gradflow.hooks.observation.checkpointing import CallContext
from gradflow.hooks.observation.forward_passes import ForwardPasses, PendingPass
from gradflow.hooks.observation.junctions.observer import JunctionObserver
from gradflow.hooks.observation.layer_calls import LayerCall, LayerCalls, LayerRan
from gradflow.hooks.observation.outputs import Last, OutputReader
from gradflow.hooks.observation.unobserved import (
    UnobservedLayers,
    why_unobservable,
    why_unreadable,
)
from gradflow.hooks.processes.layouts import Layouts
from gradflow.hooks.recording.records import StepRecord

_STRIDED = torch.strided
# Ordinary tensors of these types can be observed, unless they are empty.
_FLOATS = frozenset((torch.float32, torch.bfloat16, torch.float16, torch.float64))


class RunsLayers(Protocol):
    """The pass that layers run in; the fields as in `LayerObserver`."""

    record: StepRecord | None
    number: int
    forward_passes: ForwardPasses
    outputs: OutputReader
    junctions: JunctionObserver
    axes: dict[str, int | None]
    on_layer: Callable[[LayerRan], bool] | None
    unobserved: UnobservedLayers

    def record_of_pass(self, record: StepRecord) -> StepRecord | PendingPass:
        """Return what takes the forward pass under way."""


class LayerRecorder:
    """Records outputs, and lists layers in the table `layers` when they first run.

    `layouts` tells how outputs are split over processes; with `every_output`, each tensor of an
    output is a row of its own, else the first alone.
    """

    def __init__(
        self, of: RunsLayers, layers: LayerTable, layouts: Layouts, *, every_output: bool
    ) -> None:
        self._of = of
        self._layers = layers
        self._layouts = layouts
        self._every_output = every_output

    def layer_returned(self, calls: LayerCalls, module: nn.Module, args: Any, output: Any) -> None:
        """Record an output; most are plain tensors of an ordinary call in training mode."""
        record = self._of.record
        if (
            record is None
            or type(output) is not Tensor
            or output.dtype not in _FLOATS
            or output.layout is not _STRIDED
            or is_functorch_wrapped_tensor(output)
            or not output.numel()
            or not self._of.forward_passes.is_ordinary()
        ):
            self._layer_ran(calls, module, args, output)
            return
        call = calls.next(self._of.number)
        last = self._of.outputs.read(record, calls, call, module, output)
        if last is None:
            self._of.unobserved.note(calls.name, why_unreadable(output))
            return
        layer, (_, _, seen) = call.layer, last
        self._of.axes[layer] = seen.axis
        record.modes[layer] = "training" if module.training else "evaluation"
        self._of.junctions.summands.note_output(args, output, seen)
        if not call.is_listed:
            self._list(call, calls.role, module, output)
        wanted = False
        if self._of.on_layer is not None:
            ran = LayerRan(record, layer, calls.name, calls.role, module, output, seen.axis)
            wanted = self._of.on_layer(ran)
        call.training = None if wanted else module.training
        self._of.outputs.remember((last,))

    def _layer_ran(self, calls: LayerCalls, module: nn.Module, args: Any, output: Any) -> None:
        """Record any output of any call."""
        context = self._of.forward_passes.context()
        if self._of.record is None:
            return
        tensors = layer_outputs(output, every=self._every_output) if context else []
        if context is None or not tensors:
            if calls.name not in self._layers:
                reason = (
                    why_unobservable(output) if context else self._of.forward_passes.why_left_out()
                )
                self._of.unobserved.note(calls.name, reason)
            return
        first, found = self._layer_of_call(calls, context), []
        for place, tensor in tensors:
            call = calls.named(first + place)
            if context.recorded:
                last = self._output_ran(self._of.record, calls, call, module, args, tensor)
                if last is None:
                    self._of.unobserved.note(calls.name, why_unreadable(tensor))
                    continue
                found.append(last)
            if not call.is_listed:
                self._list(call, calls.role, module, tensor, is_first=not place)
        if found:
            self._of.outputs.remember(found)

    def _list(
        self,
        call: LayerCall,
        role: str,
        module: nn.Module,
        tensor: Tensor,
        *,
        is_first: bool = True,
    ) -> None:
        """Add the layer to the table of layers, unless it is there."""
        if call.layer not in self._layers:
            whole = self._layouts.whole(tensor)
            self._layers.add(call.layer, module, role, whole, is_first=is_first)
        call.is_listed = True

    def _output_ran(
        self,
        step: StepRecord,
        calls: LayerCalls,
        call: LayerCall,
        module: nn.Module,
        args: Any,
        tensor: Tensor,
    ) -> Last | None:
        record = self._of.record_of_pass(step)
        last = self._of.outputs.read(record, calls, call, module, tensor)
        if last is not None:
            self._of.axes[call.layer] = last[2].axis
            record.note_mode(call.layer, "training" if module.training else "evaluation")
            self._of.junctions.summands.note_output(args, tensor, last[2])
            if self._of.on_layer is not None:
                axis = last[2].axis
                ran = LayerRan(record, call.layer, calls.name, calls.role, module, tensor, axis)
                self._of.on_layer(ran)
        return last

    def _layer_of_call(self, calls: LayerCalls, context: CallContext) -> str:
        """Return the name of the call, which a checkpointed segment that runs again keeps."""
        layer = context.name_in_first_pass(calls.name)
        if layer is None:
            layer = calls.next(self._of.number).layer
        context.store_name(calls.name, layer)
        return layer
