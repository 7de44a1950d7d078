"""Which part of a layer's output this process has, under tensor parallelism.

`parallelize_module` splits layers. Their outputs are DTensors, which say how they are split, or the
local tensors of such (`use_local_output`, the default), which do not. The autograd graph still
does: it has the node that made the DTensor local, and what operations by element make of it is
split in the same way. What other operations make of a part is unknown, and left out of the record,
until a DTensor tells again. What was made of no part is the same in all processes, which the
joining of their records checks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import Parameter

from gradflow.hooks.reduction.parts import Part

# Nodes of the graph whose output has the shape of its inputs, and each element comes from theirs.
_BY_ELEMENT = re.compile(
    r"(Add|Sub|Rsub|Mul|Div|Neg|Abs|Pow|Sqrt|Exp|Relu|Gelu|Silu|Sigmoid|Tanh|Elu|Celu|LeakyRelu|"
    r"Softplus|Mish|LogSigmoid|Hardswish|Hardtanh|Hardsigmoid|Threshold|Clamp\w*|NativeDropout|"
    r"FusedDropout|Where|MaskedFill|ToCopy|Clone|Alias|RegisterPostBackwardFunction)Backward\d*"
)
# Those of them that are written in Python: FSDP2 lets the inputs of its modules pass through it.
_PASSING = "RegisterPostBackwardFunctionBackward"
# Nodes that hand on the same tensor: as a DTensor, or as one that is split in another way.
_SAME_TENSOR = ("_FromTorchTensorBackward", "RedistributeBackward")


@dataclass(frozen=True)
class Layout:
    """How a tensor is split over the processes that share the work on the layers.

    Fields:
        axis: the axis along which each process has a part; None if each has the whole tensor.
        shape: the shape of the whole tensor, if it is split.
        known: whether this is known at all.
    """

    axis: int | None = None
    shape: tuple[int, ...] | None = None
    known: bool = True

    def part(self, channel_axis: int | None) -> Part:
        """Return the part that this process has of a tensor with this channel axis."""
        if not self.known:
            return Part.UNKNOWN
        if self.axis is None:
            return Part.WHOLE
        if self.axis == channel_axis:
            return Part.CHANNELS
        return Part.BATCH if self.axis == 0 else Part.POSITIONS


WHOLE = Layout()
UNKNOWN = Layout(known=False)


class Layouts:
    """Finds the layouts of the tensors of a forward pass.

    Args:
        parts: how many processes share the work on the layers; one of them has everything.
    """

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self._of_nodes: dict[Any, Layout] = {}

    def of(self, tensor: Tensor) -> Layout:
        """Return the layout of an output."""
        if self.parts == 1:
            return WHOLE
        if hasattr(tensor, "placements"):
            return self._of_spec(tensor)
        if tensor.grad_fn is None:
            # Without a graph, only a parameter is known to be no part of anything.
            return WHOLE if isinstance(tensor, Parameter) else UNKNOWN
        return self.of_node(tensor.grad_fn)

    def whole(self, tensor: Tensor) -> Tensor:
        """Return an output, or, if it is a part, a tensor of its full shape without data."""
        shape = self.of(tensor).shape
        return tensor if shape is None else torch.empty(shape, device="meta")

    def of_gradient(self, gradient: Tensor, output: Layout) -> Layout:
        """Return the layout of the gradient of an output with that layout."""
        if self.parts > 1 and hasattr(gradient, "placements"):
            return self._of_spec(gradient)
        return output

    def of_node(self, node: Any) -> Layout:
        """Return the layout of what a node of the autograd graph has computed."""
        if self.parts == 1:
            return WHOLE
        waiting = [node]
        while waiting:
            here = waiting[-1]
            inputs = [] if self._of_source(here) else _inputs(here)
            missing = [one for one, _ in inputs if one not in self._of_nodes]
            if here not in self._of_nodes and missing:
                waiting += missing
                continue
            if here not in self._of_nodes:
                self._of_nodes[here] = self._of_source(here) or self._of_result(here, inputs)
            waiting.pop()
        return self._of_nodes[node]

    def origin(self, node: Any, output: int) -> tuple[Any, int]:
        """Return the node, and its output, of which a tensor is the same in another layout."""
        while self.parts > 1 and node.name() in _SAME_TENSOR and node.next_functions[0][0]:
            node, output = node.next_functions[0]
        return node, output

    def part_of_products(self, gradients: Sequence[Tensor], x: Layout) -> Part:
        """Return the part that inner products of gradients of the same tensor x are of."""
        found = {self.of_gradient(gradient, x) for gradient in gradients}
        if len(found) > 1 or not all(one.known for one in found):
            return Part.UNKNOWN
        return Part.WHOLE if found.pop().axis is None else Part.BATCH

    def forget(self) -> None:
        """Drop all nodes: they keep the memory of their graph."""
        self._of_nodes.clear()

    def _of_spec(self, spec: Any) -> Layout:
        """Return the layout that a DTensor, or its specification, says that it has."""
        mesh = getattr(spec, "device_mesh", None) or spec.mesh
        if all(one.is_replicate() for one in spec.placements):
            return WHOLE
        # More than one axis of a mesh is not looked into.
        if mesh.size() != self.parts or mesh.ndim > 1 or not spec.placements[0].is_shard():
            return UNKNOWN
        return Layout(spec.placements[0].dim % len(spec.shape), tuple(spec.shape))

    def _of_source(self, node: Any) -> Layout | None:
        """Return the layout of what a node brings into the graph; None if it has inputs."""
        spec = getattr(node, "dtensor_spec", None)
        if spec is not None:
            return self._of_spec(spec)
        if hasattr(node, "variable"):
            # An input that has gradients, as of a checkpointed segment, may be a part.
            is_whole = isinstance(node.variable, Parameter)
            return WHOLE if is_whole and not hasattr(node.variable, "placements") else UNKNOWN
        return None

    def _of_result(self, node: Any, inputs: list[tuple[Any, int]]) -> Layout:
        layouts = [self._of_nodes[one] for one, _ in inputs]
        name: str = node.name()
        if isinstance(node, BackwardCFunction) and name != _PASSING:
            return UNKNOWN  # a function of the user's, which may split or gather
        if all(layout == WHOLE for layout in layouts):
            return WHOLE
        first, shape = layouts[0], _shape(node, 0)
        same = all(layout == first for layout in layouts)
        alike = all(_shape(one, number) == shape for one, number in inputs)
        return first if same and alike and _BY_ELEMENT.fullmatch(name) else UNKNOWN


def _inputs(node: Any) -> list[tuple[Any, int]]:
    return [(one, number) for one, number in node.next_functions if one is not None]


def _shape(node: Any, output: int) -> torch.Size | None:
    entries = node._input_metadata
    return entries[output].shape if output < len(entries) else None
