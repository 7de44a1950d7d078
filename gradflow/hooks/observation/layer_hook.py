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
from gradflow.hooks.observation.hook import LeftOutOfCopies, hook_on
from gradflow.hooks.observation.junctions.observer import JunctionObserver
from gradflow.hooks.observation.layer_calls import LayerCalls
from gradflow.hooks.observation.outputs import ObservedOutput, OutputReader
from gradflow.hooks.processes.layouts import WHOLE
from gradflow.hooks.recording.records import StepRecord

_is_grad_enabled, _current_task = torch.is_grad_enabled, torch._C._current_graph_task_id


class ObservesLayers(Protocol):
    """What the hook works for.

    Fields:
        record: that of the step; None if it takes nothing now.
        number: of the forward pass under way.
        is_usual: whether outputs of ordinary calls are recorded as usual; False if it is not known.
    """

    record: StepRecord | None
    number: int
    is_usual: bool
    forward_passes: ForwardPasses
    outputs: OutputReader
    junctions: JunctionObserver

    def find_out_whether_usual(self) -> bool:
        """Find out and return `is_usual`."""


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
        number, reader, passes = observer.number, observer.outputs, observer.forward_passes
        place = calls.count if calls.number == number else 0
        if (
            not (observer.is_usual or observer.find_out_whether_usual())
            or type(output) is not Tensor
            or place >= len(calls.in_order)
            or module.training is not (call := calls.in_order[place]).training
            or (usual := call.outputs.usual) is None
            or call.layer in record.activations
            or not (passes.model.training and _is_grad_enabled() and _current_task() == -1)
            or get_ident() != passes.thread
            or is_functorch_wrapped_tensor(output)
            or output.is_nested  # a strided one has no sizes, and raises where asked for them
            or output.shape != (shape := usual.shape)
            or (node := output.grad_fn) is None
        ):
            self._function(calls, module, args, output)
            return
        for last, version, before in reader.last:
            # The same tensor, unless it was changed in place since, or one with another channel
            # axis, which the output would share.
            if (last is output and output._version == version) or (
                calls.keeps_axis
                and before.axis != usual.axis
                and (last.is_nested or last.shape == shape)
            ):
                self._function(calls, module, args, output)
                return
        try:
            seen = reader.reductions.note_usual(output, usual)
        except RuntimeError:  # a tensor without a version or an address
            self._function(calls, module, args, output)
            return
        calls.number, calls.count = number, place + 1
        layer, expected = call.layer, call.gradients.usual
        if expected is not None and (expected.axis != usual.axis or expected.shape != shape):
            expected = None
        observed = ObservedOutput(reader, record, call, seen, usual.axis, WHOLE, expected)
        record.activations[layer] = seen
        record.modes[layer] = "training" if call.training else "evaluation"
        summands = observer.junctions.summands
        summands.made.setdefault(node._sequence_nr() << 16 | output.output_nr, observed)
        # What was changed in place since may be a sum by now: it has to be looked at.
        if not (
            args
            and reader.last
            and args[0] is (latest := reader.last[0])[0]
            and args[0]._version == latest[1]
        ):
            summands.note_input(args)
        hook_on(output, node, observed)
        reader.last = ((output, output._version, observed),)
