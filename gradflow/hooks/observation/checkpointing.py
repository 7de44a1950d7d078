"""The context of a layer's call under activation checkpointing, which runs a forward pass twice.

`torch.utils.checkpoint` has two variants. The non-reentrant one runs the first pass as usual;
during backward it runs it again, only to recompute the tensors that autograd needs. This second
pass is not recorded. The reentrant one runs the first pass under `no_grad` and builds the graph in
the second pass, in which outputs and gradients are recorded. Layers keep the names that they got in
the first pass, which ran in order of execution.
"""

import sys
from dataclasses import dataclass
from itertools import cycle
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint

_FILE = torch.utils.checkpoint.__file__
_FORWARD, _BACKWARD = "CheckpointFunction.forward", "CheckpointFunction.backward"
_REFILL = "unpack_hook"
# The attribute of a reentrant segment's context that holds the names of its calls.
_NAMES = "gradflow_layers"


@dataclass(frozen=True)
class CallContext:
    """What a call of a module belongs to.

    Fields:
        recorded: whether its output is recorded; if not, the call only gets its name.
        segments: the reentrant segments whose first pass this is, innermost first.
        replayed: the reentrant segment whose second pass this is, or None.
    """

    recorded: bool = True
    segments: tuple[Any, ...] = ()
    replayed: Any = None

    def name_in_first_pass(self, module: str) -> str | None:
        """Return the layer name of this call in the first pass; None if this is the first pass."""
        if self.replayed is None:
            return None
        names = getattr(self.replayed, _NAMES, {})
        return next(names[module][1]) if module in names else None

    def store_name(self, module: str, layer: str) -> None:
        """Store for the second pass that this call of `module` is `layer`."""
        for segment in self.segments:
            if not hasattr(segment, _NAMES):
                setattr(segment, _NAMES, {})
            names = getattr(segment, _NAMES)
            layers = [*names[module][0], layer] if module in names else [layer]
            # If the graph is retained, the segment may run again in several backward passes.
            names[module] = (layers, cycle(layers))


_ORDINARY = CallContext()


def in_backward() -> bool:
    """Whether a backward pass is running; a forward pass that runs now is then part of it."""
    return bool(torch._C._current_graph_task_id() != -1)


def context_of_call() -> CallContext | None:
    """Return the context of the running module call, or None if it is to be ignored."""
    backward, enabled = in_backward(), torch.is_grad_enabled()
    if enabled and not backward:
        return _ORDINARY
    segments: list[Any] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _FILE:
            name = frame.f_code.co_qualname
            if name == _FORWARD:
                segments.append(frame.f_locals["ctx"])
            elif name == _BACKWARD:
                return CallContext(enabled, tuple(segments), frame.f_locals["ctx"])
            elif name.endswith(_REFILL):
                return None
        frame = frame.f_back
    return CallContext(False, tuple(segments)) if segments and not backward else None
