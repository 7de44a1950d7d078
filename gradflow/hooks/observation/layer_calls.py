"""What is known of the calls of a module: their names, and how their tensors are reduced."""

from collections.abc import Container
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
        training: the mode in which it ran last; None as long as it is not known, or if somebody
            else is to be told of each call.
    """

    __slots__ = ("alone", "gradients", "is_listed", "layer", "outputs", "training")

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.alone = (layer,)
        self.outputs, self.gradients = Habit(layer), Habit(layer)
        self.is_listed = False
        self.training: bool | None = None


class LayerCalls:
    """The calls of a module, which is named `name` and has the role `role`.

    Fields:
        keeps_axis: whether its output has the channel axis of its input, if it has its shape.
        in_order: those known, in order.
        number, count: of the forward pass that has called it last, and how often it has.
    """

    __slots__ = ("_axes", "_by_layer", "count", "in_order", "keeps_axis", "name", "number", "role")

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.keeps_axis = role in ("activation", "block", "other")
        self._axes: dict[int, int | None] = {}
        self.number = -1
        self.count = 0
        self.in_order: list[LayerCall] = []
        self._by_layer: dict[str, LayerCall] = {}

    def next(self, forward_pass: int) -> LayerCall:
        """Return the call that runs now: `name`, and `name#2` if it is the second of the pass."""
        if self.number != forward_pass:
            self.number, self.count = forward_pass, 1
            if self.in_order:
                return self.in_order[0]
            place = 0
        else:
            place = self.count
            self.count += 1
        if place == len(self.in_order):
            layer = self.name if place == 0 else f"{self.name}#{place + 1}"
            self.in_order.append(self.named(layer))
        return self.in_order[place]

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


class CallsOfModules:
    """What is known of the calls of each observed module, also while it has no hooks."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[nn.Module, LayerCalls]] = {}

    def keep_only(self, names: Container[str]) -> None:
        """Forget the modules whose names are not among `names`."""
        self._known = {name: one for name, one in self._known.items() if name in names}

    def of(self, name: str, module: nn.Module, role: str) -> LayerCalls:
        """Return what is known of the calls of a module."""
        known, calls = self._known.get(name, (None, None))
        if known is not module or calls is None or calls.role != role:
            calls = LayerCalls(name, role)
            self._known[name] = module, calls
        return calls

    def ask_again(self) -> None:
        """Take the next call of each layer for one of which not all is known."""
        for _, calls in self._known.values():
            for call in calls.in_order:
                call.training = None


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
