"""Reads the outputs of layers when a hook gets them, and their gradients in the backward pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.observation.forward_passes import PendingPass
from gradflow.hooks.observation.hook import hook_on
from gradflow.hooks.observation.layer_calls import LayerCall, LayerCalls
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.processes.layouts import WHOLE, Layout, Layouts
from gradflow.hooks.processes.tensors import held_here
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import Seen
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import Usual
from gradflow.hooks.reduction.fused import moments_if_any
from gradflow.hooks.reduction.moments import Moments

_current_task = torch._C._current_graph_task_id


class ObservedOutput:
    """An output that a hook has read, and the hook on its gradient.

    It must not refer to the tensor, which keeps its hooks.

    Fields:
        layers: the names of the layers that share it.
        moments, axis, layout: of the output.
        call: what is known of the layer's call.
        gradient: the moments of the gradient, until the backward pass has ended.

    `usual` is what its gradient is usually, if nothing but the gradient has to be looked at.
    """

    __slots__ = (
        "_reader",
        "_usual",
        "axis",
        "call",
        "gradient",
        "layers",
        "layout",
        "moments",
        "record",
    )

    def __init__(
        self,
        reader: "OutputReader",
        record: StepRecord | PendingPass,
        call: LayerCall,
        moments: Seen,
        axis: int | None,
        layout: Layout = WHOLE,
        usual: Usual | None = None,
    ) -> None:
        self._reader = reader
        self._usual = usual
        self.record = record
        self.call = call
        self.layers: tuple[str, ...] = call.alone
        self.moments = moments
        self.axis = axis
        self.layout = layout
        self.gradient: Seen | None = None

    def __call__(self, gradient: Tensor) -> None:
        """Take the gradient; most are as usual, and arrive in a pass that is known."""
        record = self.record
        if record.closed:
            return
        reader, usual = self._reader, self._usual
        task, waiting = reader.passes.running
        # Autograd sees to its shape, which is that of the output.
        if (
            usual is not None
            and waiting is not None
            and task == _current_task()
            and type(gradient) is Tensor
        ):
            try:
                seen = reader.reductions.note_usual(gradient, usual)
            except RuntimeError:  # a tensor without a version or an address
                pass
            else:
                self.gradient = seen
                waiting.append(self)
                return
        reader.gradient_arrived(self, gradient)

    def settle(self) -> None:
        """Add the gradient to the record, once the backward pass has ended."""
        seen, self.gradient = self.gradient, None
        if seen is None:
            return
        record, layers = self.record, self.layers
        if type(record) is StepRecord and len(layers) == 1 and not record.closed:
            known = record.gradients.setdefault(layers[0], seen)
            if known is seen:
                return
        record.add_gradient(layers, seen)


_UNKNOWN = object()
# An output, its version when it was read, and what is known of it.
Last = tuple[Tensor, int, ObservedOutput]


class SharesOutput(Protocol):
    """Has the names of the layers that return one tensor."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names so far."""


class KeepsOutputs(Protocol):
    """What is to differentiate other losses by the outputs of a step."""

    def add(self, output: Tensor, shared_by: "SharesOutput") -> None:
        """Take an output; `shared_by` has the layers that share it, which may become more."""


class OutputReader:
    """Reduces outputs to moments, and has their gradients reduced when autograd computes them.

    Args:
        backward_passes: tells which backward passes belong to the step.
        layouts: tells how outputs are split over processes.
        reductions: reduces them.

    Fields:
        passes, reductions: as given.
        is_shared: whether several processes share the work on a layer.
        last: the outputs of the layer that ran last.
        kept: gets the outputs that are differentiated, if it is not None.
    """

    def __init__(
        self, backward_passes: BackwardPasses, layouts: Layouts, reductions: Reductions
    ) -> None:
        self.passes = backward_passes
        self.reductions = reductions
        self.is_shared = layouts.parts > 1
        self.last: Sequence[Last] = ()
        self._layouts = layouts
        self._leaf_handles: list[RemovableHandle] = []
        self.kept: KeepsOutputs | None = None

    def end_step(self) -> None:
        """Take the hooks off tensors that outlast the step."""
        for handle in self._leaf_handles:
            handle.remove()
        self._leaf_handles.clear()

    def forget(self) -> None:
        """Drop all data of the forward pass that has just run."""
        self.last = ()

    def remember(self, outputs: Sequence[Last]) -> None:
        """Remember the outputs of a layer: the next layer may return the same tensors."""
        self.last = outputs

    def read(
        self,
        record: StepRecord | PendingPass,
        calls: LayerCalls,
        call: LayerCall,
        module: nn.Module,
        tensor: Tensor,
    ) -> Last | None:
        """Record the output `tensor` of a layer, and its gradient in the backward pass.

        Return None if it is of a class or dtype that has no moments.
        """
        # Nothing tells whether an inference tensor was changed in place.
        version = -1 if tensor.is_inference() else tensor._version
        for last in self.last:
            if last[0] is tensor and last[1] == version >= 0:
                # A block returns the output of its last layer: both share one reduction.
                last[2].layers += call.alone
                record.add_activation(call.layer, last[2].moments)
                return last
        axis: Any = self._axis_of_last(tensor) if calls.keeps_axis else _UNKNOWN
        if axis is _UNKNOWN:
            axis = calls.axis(module, tensor)
        layout = self._layouts.of(tensor) if self.is_shared else WHOLE
        seen: Seen | None
        if layout is WHOLE:
            held = tensor if type(tensor) is Tensor else held_here(tensor)
            seen = self.reductions.reduce(held, axis, record.histograms, call.outputs)
        else:
            seen = _of_part(held_here(tensor), axis, layout, histogram=record.histograms)
        if seen is None:
            return None
        if type(record) is StepRecord and call.layer not in record.activations:
            record.activations[call.layer] = seen
        else:
            record.add_activation(call.layer, seen)
        usual = call.gradients.usual
        if usual is not None and (
            layout is not WHOLE
            or self.is_shared
            or record.histograms
            or tensor.is_nested
            or usual.axis != axis
            or usual.shape != tensor.shape
        ):
            usual = None
        output = ObservedOutput(self, record, call, seen, axis, layout, usual)
        if tensor.requires_grad:
            self.register(tensor, output)
            if self.kept is not None:
                self.kept.add(tensor, output)
        return tensor, version, output

    def register(self, tensor: Tensor, hook: ObservedOutput) -> None:
        """Call `hook` with the gradient of `tensor`, as `tensor.register_hook` does, at less cost.

        A handle that nobody keeps takes most of the time there.
        """
        node = tensor.grad_fn
        if node is None:
            # A leaf, e.g. a parameter that is returned as it is, would keep its hook.
            self._leaf_handles.append(tensor.register_hook(hook))
            return
        if type(tensor) is not Tensor:
            tensor.register_hook(hook)
            return
        hook_on(tensor, node, hook)

    def _axis_of_last(self, tensor: Tensor) -> Any:
        """Return the channel axis of the last layer's output, if it has the shape of `tensor`."""
        if not tensor.is_nested:
            for last, _, output in self.last:
                if not last.is_nested and last.shape == tensor.shape:
                    return output.axis
        return _UNKNOWN

    def gradient_arrived(self, output: ObservedOutput, gradient: Tensor) -> None:
        """Take the gradient of an output, of whatever kind."""
        waiting = self.passes.gradients()
        if waiting is None:
            return
        record = output.record
        if (
            output.layout is WHOLE
            and not self.is_shared
            and not record.histograms
            and type(gradient) is Tensor
        ):
            habit = output.call.gradients
            seen = self.reductions.reduce(gradient, output.axis, False, habit)
        else:
            seen = self._reduce_gradient(output, gradient)
        if seen is not None:
            output.gradient = seen
            waiting.append(output)

    def _reduce_gradient(self, output: ObservedOutput, gradient: Tensor) -> Seen | None:
        """Return the moments of a gradient; its magnitudes are those in the loss of all processes.

        `output` is that which it is the gradient of.
        """
        record, axis = output.record, output.axis
        share, histogram = record.loss_share, record.histograms
        layout = output.layout
        if self.is_shared:
            layout = self._layouts.of_gradient(gradient, layout)
        if type(gradient) is not Tensor:
            gradient = held_here(gradient)
        if histogram and share != 1:
            scaled = _of_part(gradient * share, axis, layout, histogram=True)
            if scaled is None:
                return None
            part, magnitudes = scaled.part, scaled.magnitudes
            return replace(scaled.scaled(1 / share), magnitudes=magnitudes, part=part)
        if layout is not WHOLE:
            return _of_part(gradient, axis, layout, histogram=histogram)
        return self.reductions.reduce(gradient, axis, histogram, output.call.gradients)


def _of_part(x: Tensor, axis: int | None, layout: Layout, *, histogram: bool) -> Moments | None:
    """Return the moments of the part x of a tensor with that layout."""
    seen = moments_if_any(x, axis, histogram=histogram)
    if seen is not None:
        seen.part = layout.part(axis)
    return seen
