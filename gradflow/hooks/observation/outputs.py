"""Reads the outputs of layers when a hook gets them, and their gradients in the backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.layers import channel_axis
from gradflow.hooks.observation.forward_passes import PendingPass
from gradflow.hooks.observation.passes import BackwardPasses
from gradflow.hooks.processes.layouts import Layout, Layouts
from gradflow.hooks.processes.tensors import held_here
from gradflow.hooks.records import StepRecord
from gradflow.hooks.reduction.fused import Moments, moments_if_any


@dataclass(frozen=True)
class ObservedOutput:
    """An output as it was when a hook read it, and the layers that share it."""

    tensor: Tensor
    version: int
    layers: list[str]
    moments: Moments
    axis: int | None

    def is_unchanged(self, tensor: Tensor) -> bool:
        """Whether `tensor` is this output, not changed in place since."""
        return tensor is self.tensor and tensor._version == self.version


class OutputReader:
    """Reduces outputs to moments, and has their gradients reduced when autograd computes them.

    Args:
        backward_passes: tells which backward passes belong to the step.
        layouts: tells how outputs are split over processes.
    """

    def __init__(self, backward_passes: BackwardPasses, layouts: Layouts) -> None:
        self._backward_passes = backward_passes
        self._layouts = layouts
        self._last: Sequence[ObservedOutput] = ()
        self._leaf_handles: list[RemovableHandle] = []

    def end_step(self) -> None:
        """Take the hooks off tensors that outlast the step."""
        for handle in self._leaf_handles:
            handle.remove()
        self._leaf_handles.clear()

    def forget(self) -> None:
        """Drop all data of the forward pass that has just run."""
        self._last = ()

    def remember(self, outputs: Sequence[ObservedOutput]) -> None:
        """Remember the outputs of a layer: the next layer may return the same tensors."""
        self._last = outputs

    def read(
        self,
        record: StepRecord | PendingPass,
        layer: str,
        role: str,
        module: nn.Module,
        tensor: Tensor,
    ) -> ObservedOutput | None:
        """Record the output `tensor` of `layer` and its gradient.

        Return None if it is of a class or dtype that has no moments.
        """
        return self._observe(record, layer, tensor, self._axis(module, role, tensor))

    def _axis(self, module: nn.Module, role: str, tensor: Tensor) -> int | None:
        """Return the channel axis of `tensor`; a layer that keeps the shape keeps the axis."""
        if role in ("activation", "block", "other") and not tensor.is_nested:
            for last in self._last:
                if not last.tensor.is_nested and last.tensor.shape == tensor.shape:
                    return last.axis
        return channel_axis(module, tensor)

    def _observe(
        self, record: StepRecord | PendingPass, layer: str, tensor: Tensor, axis: int | None
    ) -> ObservedOutput | None:
        """Record the moments of `tensor` now, and those of its gradient in the backward pass.

        Return None if it is of a class or dtype that has no moments.
        """
        for last in self._last:
            if last.is_unchanged(tensor):
                # A block returns the output of its last layer: both share one reduction.
                last.layers.append(layer)
                record.add_activation(layer, last.moments)
                return last
        layout = self._layouts.of(tensor)
        seen = moments_if_any(held_here(tensor), axis, histogram=record.histograms)
        if seen is None:
            return None
        seen.part = layout.part(axis)
        record.add_activation(layer, seen)
        layers = [layer]
        if tensor.requires_grad:

            def on_gradient(gradient: Tensor) -> None:
                if not record.closed and self._backward_passes.belongs_to_step():
                    seen = self._gradient_moments(record, gradient, layout, axis)
                    if seen is not None:
                        self._backward_passes.call_at_end(
                            partial(record.add_gradient, layers, seen)
                        )

            handle = tensor.register_hook(on_gradient)
            if tensor.grad_fn is None:
                # A leaf, e.g. a parameter that is returned as it is, would keep its hook.
                self._leaf_handles.append(handle)
        return ObservedOutput(tensor, tensor._version, layers, seen, axis)

    def _gradient_moments(
        self,
        record: StepRecord | PendingPass,
        gradient: Tensor,
        output: Layout,
        axis: int | None,
    ) -> Moments | None:
        """Return the moments of a gradient; its magnitudes are those in the loss of all processes.

        `output` is the layout of the output that it is the gradient of.
        """
        part, share = self._layouts.of_gradient(gradient, output).part(axis), record.loss_share
        gradient = held_here(gradient)
        if not record.histograms or share == 1:
            seen = moments_if_any(gradient, axis, histogram=record.histograms)
            return None if seen is None else replace(seen, part=part)
        seen = moments_if_any(gradient * share, axis, histogram=True)
        if seen is None:
            return None
        return replace(seen.scaled(1 / share), magnitudes=seen.magnitudes, part=part)
