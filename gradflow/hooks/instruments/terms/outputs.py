"""Keeps where the outputs of layers are in the graph, so that terms can be differentiated there."""

import weakref
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradflow.hooks.observation.checkpointing import in_backward
from gradflow.hooks.observation.outputs import SharesOutput


@dataclass(frozen=True)
class KeptOutput:
    """Where an output is in the graph; the tensor itself is not kept.

    Fields:
        shared_by: has the names of the layers that share it.
        edge: its place, also if the tensor is changed in place later.
        hooks: those on its gradient, of the user and of the tracer.
        tensor: the tensor, while somebody holds it.
    """

    shared_by: SharesOutput
    edge: GradientEdge
    hooks: MutableMapping[int, Any] | None
    tensor: "weakref.ref[Tensor]"


@dataclass
class KeptOutputs:
    """The outputs of the forward passes of a step.

    Fields:
        entries: one for each output.
        are_hidden: whether there are others that only the loss's own backward pass has made, as
            reentrant checkpointing does.
    """

    entries: list[KeptOutput] = field(default_factory=list)
    are_hidden: bool = False

    def add(self, output: Tensor, shared_by: SharesOutput) -> None:
        """Take an output; `shared_by` has the layers that share it, which may become more."""
        if in_backward():
            self.are_hidden = True
            return
        edge, hooks = get_gradient_edge(output), output._backward_hooks
        self.entries.append(KeptOutput(shared_by, edge, hooks, weakref.ref(output)))

    def clear(self) -> None:
        """Let go of them, and of the graph."""
        self.entries.clear()
        self.are_hidden = False
