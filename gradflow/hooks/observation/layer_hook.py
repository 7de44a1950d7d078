"""The hook on a layer that has run: in most calls all is as it was in the calls before.

Such a call costs a few comparisons, and a note of tensor and moments. Whatever differs goes the way
that any output can go, so nothing is recorded that was not looked at.
"""

from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.compiler import is_compiling

from gradflow.hooks.observation.forward_passes import ForwardPasses
from gradflow.hooks.observation.hook import LeftOutOfCopies
from gradflow.hooks.observation.junction_observer import JunctionObserver
from gradflow.hooks.observation.layer_calls import LayerCalls
from gradflow.hooks.observation.outputs import ObservedOutput, OutputReader, hook_on
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments

_is_grad_enabled, _current_task = torch.is_grad_enabled, torch._C._current_graph_task_id


class ObservesLayers(Protocol):
    """What the hook works for.

    Fields:
        record: that of the step; None if it takes nothing now.
        number: of the forward pass under way.
    """

    record: StepRecord | None
    number: int
    forward_passes: ForwardPasses
    outputs: OutputReader
    junctions: JunctionObserver


class LayerHook(LeftOutOfCopies):
    """Records an output; `function`, which takes `calls` first, records what is not as usual."""

    __slots__ = ("_calls", "_observer")

    def __init__(
        self, observer: ObservesLayers, function: Callable[..., None], calls: LayerCalls
    ) -> None:
        super().__init__(function)
        self._observer = observer
        self._calls = calls

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Record the output if there is a record to fill."""
        if is_compiling():
            return
        observer, calls = self._observer, self._calls
        record = observer.record
        if record is None:
            return
        number = observer.number
        place = calls.count if calls.number == number else 0
        reader, passes = observer.outputs, observer.forward_passes
        if (
            type(output) is not Tensor
            or place >= len(calls.in_order)
            or record.histograms
            or reader.is_shared
            or reader.kept is not None
            or module.training is not (call := calls.in_order[place]).training
            or (usual := call.outputs.usual) is None
            or call.layer in record.activations
            or not (passes.model.training and _is_grad_enabled() and _current_task() == -1)
            or passes.is_trial
            or get_ident() != passes.thread
            or is_functorch_wrapped_tensor(output)
        ):
            self._function(calls, module, args, output)
            return
        noted = node = None
        try:
            shape = usual.shape
            if output.shape == shape and (node := output.grad_fn) is not None:
                axis = usual.axis
                is_new = True
                for last, _, before in reader.last:
                    if last is output:
                        is_new = False
                    elif calls.keeps_axis and last.shape == shape:
                        axis = before.axis
                        break
                if is_new and axis == usual.axis:
                    seen = DeferredMoments()
                    noted = output, output._version, output.data_ptr(), usual, seen
        except RuntimeError:  # a tensor without a shape, a version or an address
            noted = None
        if noted is None or node is None:
            self._function(calls, module, args, output)
            return
        calls.number, calls.count = number, place + 1
        layer = call.layer
        record.activations[layer] = seen
        record.modes[layer] = "training" if module.training else "evaluation"
        observer.junctions.note_made(node, output.output_nr, layer, seen)
        latest = reader.last[0] if reader.last else None
        # What was changed in place since may be a sum by now: it has to be looked at.
        if not args or not latest or args[0] is not latest[0] or args[0]._version != latest[1]:
            observer.junctions.note_input(args)
        observed = ObservedOutput(reader, record, call, seen, usual.axis)
        hook_on(output, node, observed)
        reader.last = ((output, noted[1], observed),)
        reader.reductions.note_usual(noted)
