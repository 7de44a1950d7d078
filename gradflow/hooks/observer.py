"""The hooks on a model's layers, which reduce outputs and their gradients to moments.

Gradients are caught by tensor hooks on the outputs, not by module hooks, so that in-place
operations on an output (`ReLU(inplace=True)`, `out += identity`) stay as the user wrote them.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.checkpointing import Place, in_backward, place_of_call
from gradflow.hooks.fused import Moments, moments
from gradflow.hooks.hook import Hook
from gradflow.hooks.junctions import Junction, find_junction, watch_junction
from gradflow.hooks.layers import LayerTable, channel_axis, first_tensor
from gradflow.hooks.passes import BackwardPasses, Savepoint
from gradflow.hooks.records import JunctionRecord, StepRecord
from gradflow.hooks.refusals import refuse_thread


@dataclass(frozen=True)
class _Observed:
    """An output as it was when a hook saw it, with the layers that share it."""

    tensor: Tensor
    version: int
    layers: list[str]
    moments: Moments
    axis: int | None

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

    Args:
        model: the model as a whole, whose forward pass begins and ends a pass.
        observed: name, module and role of each module to observe.
        layers: the table that the layers are entered in as they are met.
    """

    def __init__(
        self, model: nn.Module, observed: Sequence[tuple[str, nn.Module, str]], layers: LayerTable
    ) -> None:
        self.record: StepRecord | None = None
        self._model = model
        self._observed = observed
        self._layers = layers
        self._thread = threading.get_ident()
        self._savepoint: Savepoint | None = None
        self._backward = BackwardPasses()
        self._leaf_handles: list[RemovableHandle] = []
        self._handles: list[RemovableHandle] = []
        self._calls: Counter[str] = Counter()
        self._inputs: defaultdict[str, list[_BlockInput | None]] = defaultdict(list)
        self._makers: dict[Node, _Made] = {}
        self._claimed: set[Node] = set()
        self._last: _Observed | None = None

    @property
    def names(self) -> list[str]:
        """The names of the observed modules."""
        return [name for name, _, _ in self._observed]

    def attach(self) -> None:
        """Put the hooks on."""
        self._thread = threading.get_ident()
        before, after = Hook(self, self._forward_begins), Hook(self, self._forward_ends)
        self._handles.append(self._model.register_forward_pre_hook(before))
        for name, module, role in self._observed:
            if role == "block":
                entering = Hook(self, partial(self._before_block, name))
                self._handles.append(module.register_forward_pre_hook(entering, with_kwargs=True))
            leaving = Hook(self, partial(self._after, name, role))
            self._handles.append(module.register_forward_hook(leaving))
        # Last, so that of a model that is one layer the layer comes before the end of the pass.
        self._handles.append(self._model.register_forward_hook(after))

    def detach(self) -> None:
        """Take off the hooks put on by `attach`, and no others."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.record = None
        self.end_step()

    def end_step(self) -> None:
        """Let go of everything that belongs to the step; a pass that broke off leaves nothing."""
        if self._savepoint is not None:
            self._savepoint.restore()
            self._savepoint = None
        for handle in self._leaf_handles:
            handle.remove()
        self._leaf_handles.clear()
        self._backward.forget()
        self.forget()

    def forget(self) -> None:
        """Let go of everything that belongs to the forward pass just run."""
        self._calls.clear()
        self._inputs.clear()
        self._makers.clear()
        self._claimed.clear()
        self._last = None

    def _place(self) -> Place | None:
        """Where the call now running stands; None where it is not to be observed."""
        if not self._model.training:
            return None
        # Autograd runs the segments of a checkpointed pass again in threads of its own.
        if threading.get_ident() != self._thread and not in_backward():
            raise refuse_thread()
        return place_of_call()

    def _forward_begins(self, *_: Any) -> None:
        if in_backward() or self._place() is None or self.record is None:
            return
        if self._savepoint is not None:
            self._savepoint.restore()
        self._savepoint = Savepoint(self.record)
        self.forget()

    def _forward_ends(self, *_: Any) -> None:
        if in_backward() or self._place() is None:
            return
        self._savepoint = None
        # The nodes of the graph would keep its memory alive until the next forward pass.
        self.forget()

    def _before_block(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        place = self._place()
        if place is None or not place.recorded:
            return
        x = first_tensor((*args, *kwargs.values()))
        known = None if x is None else _BlockInput(x, x._version, x.grad_fn, x.output_nr)
        self._inputs[name].append(known)

    def _after(self, name: str, role: str, module: nn.Module, _: Any, output: Any) -> None:
        place, record = self._place(), self.record
        tensor = None if place is None else first_tensor(output)
        if place is None or record is None or tensor is None:
            return
        layer = self._layer_of_call(name, place)
        if layer not in self._layers:
            self._layers.add(layer, module, role, tensor)
        if not place.recorded:
            return
        seen = self._observe(record, layer, tensor, self._axis(module, role, tensor))
        if role == "block" and self._inputs[name]:
            self._look_for_junction(record, layer, self._inputs[name].pop(), tensor)
        if tensor.grad_fn is not None:
            self._makers.setdefault(tensor.grad_fn, _Made(layer, seen))

    def _layer_of_call(self, name: str, place: Place) -> str:
        """`name` for the first call of a module in a forward pass, `name#2` for the second."""
        layer = place.known_name(name)
        if layer is None:
            self._calls[name] += 1
            layer = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        place.keep_name(name, layer)
        return layer

    def _axis(self, module: nn.Module, role: str, tensor: Tensor) -> int | None:
        """The channel axis of `tensor`: for layers that keep it, that of the layer before."""
        last = self._last
        if role in ("activation", "block", "other") and last and last.tensor.shape == tensor.shape:
            return last.axis
        return channel_axis(module, tensor)

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
                if not record.closed:
                    deliver = partial(record.add_gradient, layers, moments(gradient, axis))
                    self._backward.add(deliver)

            handle = tensor.register_hook(on_gradient)
            if tensor.grad_fn is None:
                # Not made in this pass: a parameter handed through, which would keep its hook.
                self._leaf_handles.append(handle)
        self._last = _Observed(tensor, tensor._version, layers, seen, axis)
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
        deliver = partial(self._deliver_products, kept)
        watch_junction(junction, given.node, given.index, deliver)

    def _deliver_products(self, kept: JunctionRecord, products: Tensor) -> None:
        self._backward.add(partial(kept.add_products, products))

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
