"""The hooks on a model's layers, which reduce outputs and their gradients to moments.

Gradients are caught by tensor hooks on the outputs, not by module hooks, so that in-place
operations on an output (`ReLU(inplace=True)`, `out += identity`) stay as the user wrote them.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.fused import Moments, moments
from gradflow.hooks.junction_observer import JunctionObserver
from gradflow.hooks.layers import LayerTable, channel_axis, first_tensor, observed_modules
from gradflow.hooks.records import StepRecord


@dataclass(frozen=True)
class _Observed:
    """An output as it was when a hook saw it, with the layers that share it."""

    tensor: Tensor
    version: int
    layers: list[str]
    moments: Moments

    def is_still(self, tensor: Tensor) -> bool:
        """Whether `tensor` is this one, not changed in place since."""
        return tensor is self.tensor and tensor._version == self.version


class LayerObserver:
    """Fills `record` while the model trains; while `record` is None, hooks return at once.

    Only forward passes of a model in training mode with gradients enabled are observed.
    """

    def __init__(self, model: nn.Module, layers: LayerTable) -> None:
        self.record: StepRecord | None = None
        self._model = model
        self._layers = layers
        self._handles: list[RemovableHandle] = []
        self._calls: Counter[str] = Counter()
        self._last: _Observed | None = None
        self.junctions = JunctionObserver(layers, self._observing)

    def attach(self) -> None:
        """Put the hooks on."""
        self._handles.append(self._model.register_forward_pre_hook(self._forward_begins))
        for name, module, role in observed_modules(self._model):
            after = partial(self._after, name, role)
            self._handles.append(module.register_forward_hook(after))
        self._handles += self.junctions.attach(self._model)
        self._handles.append(self._model.register_forward_hook(self._forward_ends))

    def detach(self) -> None:
        """Take off the hooks put on by `attach`, and no others."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.record = None
        self.forget()

    def forget(self) -> None:
        """Let go of everything that belongs to the forward pass just run."""
        self._calls.clear()
        self._last = None
        self.junctions.forget()

    def _observing(self) -> StepRecord | None:
        wanted = self._model.training and torch.is_grad_enabled()
        return self.record if wanted else None

    def _forward_begins(self, *_: Any) -> None:
        self.forget()

    def _forward_ends(self, *_: Any) -> None:
        # The nodes of the graph would keep its memory alive until the next forward pass.
        self.forget()

    def _after(self, name: str, role: str, module: nn.Module, args: Any, output: Any) -> None:
        record = self._observing()
        tensor = first_tensor(output)
        if record is None or tensor is None:
            return
        self._calls[name] += 1
        layer = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        if layer not in self._layers:
            self._layers.add(layer, module, role, tensor)
        seen = self._observe(record, layer, tensor, channel_axis(module, tensor))
        self.junctions.saw(args, tensor, layer, seen)

    def _observe(self, record: StepRecord, layer: str, tensor: Tensor, axis: int | None) -> Moments:
        """Record the moments of `tensor` under `layer`, now, and of its gradient, later."""
        last = self._last
        if last is not None and last.is_still(tensor):
            # A block's output is its last layer's: one reduction serves both.
            last.layers.append(layer)
            record.add_activation(layer, last.moments)
            return last.moments
        seen = moments(tensor, axis)
        record.add_activation(layer, seen)
        layers = [layer]
        if tensor.requires_grad:

            def on_gradient(gradient: Tensor) -> None:
                record.add_gradient(layers, moments(gradient, axis))

            tensor.register_hook(on_gradient)
        self._last = _Observed(tensor, tensor._version, layers, seen)
        return seen
