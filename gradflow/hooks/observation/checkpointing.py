"""Where a layer's call stands under activation checkpointing, which runs a forward pass twice.

`torch.utils.checkpoint` comes in two kinds. The one without reentrance runs the first pass as usual
and runs it again, during backward, only to refill what autograd had saved: the second pass is not
to be recorded. The reentrant one runs the first pass under `no_grad` and builds the graph in the
second: there outputs and gradients are recorded, under the names that the layers got in the first,
which ran in order of execution.
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
# Where a reentrant segment keeps the names of its calls; it lives and goes with the segment.
_NAMES = "gradflow_layers"


@dataclass(frozen=True)
class CallContext:
    """Where a call stands.

    Fields:
        recorded: whether its output is recorded; if not, the call is only given its name.
        segments: the reentrant segments whose first pass this is, from the innermost out.
        replayed: the reentrant segment that is run again, if one is.
    """

    recorded: bool = True
    segments: tuple[Any, ...] = ()
    replayed: Any = None

    def name_in_first_pass(self, module: str) -> str | None:
        """The layer that this call of `module` was in the first pass; None if this is the first."""
        if self.replayed is None:
            return None
        names = getattr(self.replayed, _NAMES, {})
        return next(names[module][1]) if module in names else None

    def store_name(self, module: str, layer: str) -> None:
        """Note for the second pass that this call of `module` is `layer`."""
        for segment in self.segments:
            if not hasattr(segment, _NAMES):
                setattr(segment, _NAMES, {})
            names = getattr(segment, _NAMES)
            layers = [*names[module][0], layer] if module in names else [layer]
            # A graph that is kept may be run backward, and with it the segment, many times.
            names[module] = (layers, cycle(layers))


_ORDINARY = CallContext()


def in_backward() -> bool:
    """Whether a backward pass is running, which a forward pass then is a part of."""
    return bool(torch._C._current_graph_task_id() != -1)


def context_of_call() -> CallContext | None:
    """Where the module call now running stands; None where it is not to be recorded."""
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
