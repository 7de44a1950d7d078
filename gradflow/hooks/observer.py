"""The hooks on a model's layers, which reduce outputs and their gradients to moments.

Gradients are caught by tensor hooks on the outputs, not by module hooks, so that in-place
operations on an output (`ReLU(inplace=True)`, `out += identity`) stay as the user wrote them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.fused import Moments, moments
from gradflow.hooks.junctions import Junction, find_junction, watch_junction
from gradflow.hooks.layers import LayerTable, channel_axis, first_tensor, observed_modules
from gradflow.hooks.records import JunctionRecord, StepRecord


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


@dataclass(frozen=True)
class _Made:
    """What is known of the operation that made an observed output."""

    layer: str
    moments: Moments


@dataclass(frozen=True)
class _BlockInput:
    """A block's input as the block received it."""

    tensor: Tensor
    version: int
    node: Node | None
    index: int


class LayerObserver:
    """Fills `record` while the model trains; while `record` is None, hooks return at once.

    Only forward passes of a model in training mode with gradients enabled are observed.
    """

    def __init__(self, model: nn.Module, layers: LayerTable, *, histograms: bool = False) -> None:
        self.record: StepRecord | None = None
        self._histograms = histograms
        self._model = model
        self._layers = layers
        self._handles: list[RemovableHandle] = []
        self._calls: Counter[str] = Counter()
        self._inputs: defaultdict[str, list[_BlockInput | None]] = defaultdict(list)
        self._makers: dict[Node, _Made] = {}
        self._claimed: set[Node] = set()
        self._last: _Observed | None = None

    def attach(self) -> None:
        """Put the hooks on."""
        self._handles.append(self._model.register_forward_pre_hook(self._forward_begins))
        self._handles.append(self._model.register_forward_hook(self._forward_ends))
        for name, module, role in observed_modules(self._model):
            if role == "block":
                before = partial(self._before_block, name)
                self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            after = partial(self._after, name, role)
            self._handles.append(module.register_forward_hook(after))

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
        self._inputs.clear()
        self._makers.clear()
        self._claimed.clear()
        self._last = None

    def _observing(self) -> StepRecord | None:
        wanted = self._model.training and torch.is_grad_enabled()
        return self.record if wanted else None

    def _forward_begins(self, *_: Any) -> None:
        self.forget()

    def _forward_ends(self, *_: Any) -> None:
        # The nodes of the graph would keep its memory alive until the next forward pass.
        self.forget()

    def _before_block(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._observing() is None:
            return
        x = first_tensor((*args, *kwargs.values()))
        known = None if x is None else _BlockInput(x, x._version, x.grad_fn, x.output_nr)
        self._inputs[name].append(known)

    def _after(self, name: str, role: str, module: nn.Module, _: Any, output: Any) -> None:
        record = self._observing()
        tensor = first_tensor(output)
        if record is None or tensor is None:
            return
        self._calls[name] += 1
        layer = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        if layer not in self._layers:
            self._layers.add(layer, module, role, tensor)
        seen = self._observe(record, layer, tensor, channel_axis(module, tensor))
        if role == "block" and self._inputs[name]:
            self._look_for_junction(record, layer, self._inputs[name].pop(), tensor)
        if tensor.grad_fn is not None:
            self._makers.setdefault(tensor.grad_fn, _Made(layer, seen))

    def _observe(self, record: StepRecord, layer: str, tensor: Tensor, axis: int | None) -> Moments:
        """Record the moments of `tensor` under `layer`, now, and of its gradient, later."""
        last = self._last
        if last is not None and last.is_still(tensor):
            # A block's output is its last layer's: one reduction serves both.
            last.layers.append(layer)
            record.add_activation(layer, last.moments)
            return last.moments
        seen = moments(tensor, axis, histogram=self._histograms)
        record.add_activation(layer, seen)
        layers = [layer]
        if tensor.requires_grad:

            def on_gradient(gradient: Tensor) -> None:
                seen = moments(gradient, axis, histogram=self._histograms)
                record.add_gradient(layers, seen)

            tensor.register_hook(on_gradient)
        self._last = _Observed(tensor, tensor._version, layers, seen)
        return seen

    def _look_for_junction(
        self, record: StepRecord, layer: str, given: _BlockInput | None, output: Tensor
    ) -> None:
        if given is None or given.node is None or output.grad_fn is None:
            return
        junction = find_junction(given.node, output.grad_fn, self._claimed)
        if junction is None:
            return
        self._claimed.add(junction.addition)
        for node in junction.skip.nodes:
            if node in self._makers:
                self._layers.mark_projection(self._makers[node].layer)
        entry = JunctionRecord(
            junction.shortcut,
            self._skip_moments(junction, given),
            self._moments_of(junction.branch.end),
        )
        kept = record.add_junction(layer, entry)
        watch_junction(junction, given.node, given.index, kept.add_products)

    def _skip_moments(self, junction: Junction, given: _BlockInput) -> Moments | None:
        """The moments of skip(x); None where they cannot be had any more."""
        if junction.skip.nodes or given.node is None:
            return self._moments_of(junction.skip.end)
        known = self._moments_of(given.node)
        if known is None and given.tensor._version == given.version and given.tensor.dim() > 1:
            return moments(given.tensor, 2 if given.tensor.dim() == 3 else 1)
        return known

    def _moments_of(self, node: Node) -> Moments | None:
        made = self._makers.get(node)
        return None if made is None else made.moments
