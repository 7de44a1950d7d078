"""What is known of the calls of a module: their names, and how their tensors are reduced."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from gradflow.hooks.layers import channel_axis
from gradflow.hooks.reduction.deferred.waiting import Habit


class LayerCall:
    """One of the calls of a module in a forward pass, such as the second.

    Fields:
        layer: its name: that of the module, then `#2` etc., then the place of a further tensor.
        alone: its name as the only one of an output.
        outputs, gradients: how they are reduced.
        is_listed: whether the layer is known to be in the table of layers.
    """

    __slots__ = ("alone", "gradients", "is_listed", "layer", "outputs")

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.alone = (layer,)
        self.outputs, self.gradients = Habit(layer), Habit(layer)
        self.is_listed = False


class LayerCalls:
    """The calls of a module, which is named `name` and has the role `role`.

    Fields:
        keeps_axis: whether its output has the channel axis of its input, if it has its shape.
    """

    __slots__ = ("_axes", "_by_layer", "_count", "_in_order", "_pass", "keeps_axis", "name", "role")

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.keeps_axis = role in ("activation", "block", "other")
        self._axes: dict[int, int | None] = {}
        self._pass = -1
        self._count = 0
        self._in_order: list[LayerCall] = []
        self._by_layer: dict[str, LayerCall] = {}

    def next(self, forward_pass: int) -> LayerCall:
        """Return the call that runs now: `name`, and `name#2` if it is the second of the pass."""
        if self._pass != forward_pass:
            self._pass, self._count = forward_pass, 1
            if self._in_order:
                return self._in_order[0]
            place = 0
        else:
            place = self._count
            self._count += 1
        if place == len(self._in_order):
            layer = self.name if place == 0 else f"{self.name}#{place + 1}"
            self._in_order.append(self.named(layer))
        return self._in_order[place]

    def axis(self, module: nn.Module, tensor: Tensor) -> int | None:
        """Return the `channel_axis` of an output."""
        if tensor.is_nested:
            return channel_axis(module, tensor)
        axes, known = tensor.dim(), self._axes
        if axes not in known:
            known[axes] = channel_axis(module, tensor)
        return known[axes]

    def named(self, layer: str) -> LayerCall:
        """Return the call named `layer`."""
        if layer not in self._by_layer:
            self._by_layer[layer] = LayerCall(layer)
        return self._by_layer[layer]


class LayerRan(NamedTuple):
    """A call of an observed layer, and the tensor of its output that is observed.

    Fields:
        record: of the step, or of a pass that is part of it only once it is differentiated.
        layer: the call's name, e.g. `cell#2`.
        name, role, module: the module's.
        channel_axis: of the output; None without.
    """

    record: Any
    layer: str
    name: str
    role: str
    module: nn.Module
    output: Tensor
    channel_axis: int | None
