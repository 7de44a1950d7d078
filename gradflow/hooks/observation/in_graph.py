"""Statistics as operations of the compiled graph, so that recorded steps run compiled.

A forward hook returns its module's output through `_Observed`, an autograd function that leaves it
as it is. In the forward pass it writes the statistics of the output to a buffer, in the backward
pass those of its gradient to another. The compiler traces both and fuses them with what makes the
tensors. After the step, the moments of all tensors are computed in few calls, and read when the
run's numbers are transferred. So it is with a CUDA graph that the user captures, compiled or not:
the hooks run while it is captured, and each replay fills the buffers.

`graph_sums` says what the buffers hold. If no pass has written them since the step began, the layer
has no row in that step; if several have, as under gradient accumulation, neither: only the last
would count. Nor has it one if its output does not fit the buffers: that is fixed in the graph.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.observation.graph_sums import Buffers, Numbers, SumsTogether, units_on, write
from gradflow.hooks.observation.hook import LeftOutOfCopies
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.moments import Moments


class _Switch:
    """Whether passes that begin now are recorded; the compiler makes a graph for either."""

    def __init__(self) -> None:
        self.is_on = True


class InGraphLayers:
    """Hooks on layers that take statistics within the graph, and the buffers that they fill.

    Args:
        model: the whole model: only passes in its training mode are recorded, with gradients.
        modules: the observed modules by name.
        seen: the moments of each layer in a step recorded before, in order of execution; these say
            how many channels, and on which device.
        backward_order: the layers whose gradients that step has, in order of execution.
        axes: the channel axis of each layer's output in that step.
        report: says once that something is not recorded; takes a kind and a message.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        seen: Mapping[str, Moments],
        backward_order: Iterable[str],
        axes: Mapping[str, int | None],
        report: Callable[[str, str], None],
    ) -> None:
        self._model = model
        self._backward_order = list(backward_order)
        self._report = report
        self._switch = _Switch()
        self._shapes: list[tuple[str, int, bool]] = []
        self._buffers: list[Buffers] = []
        self._units: dict[torch.device, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        # A second call in a pass would overwrite the first one's numbers.
        repeated = {name.partition("#")[0] for name in seen if "#" in name}
        for name, moments in seen.items():
            if name in modules and name not in repeated:
                self._attach(name, modules[name], moments, axes[name])
        self._together = SumsTogether(self._buffers) if self._buffers else None
        left_out = sorted(set(seen) - {name for name, _, _ in self._shapes})
        if left_out:
            report("in graph", _left_out_message(left_out))
        # A CUDA graph of the user writes to them as long as it is replayed, also after the tracer.
        weakref.finalize(model, _let_go, self._buffers, self._units).atexit = False

    def _attach(self, name: str, module: nn.Module, seen: Moments, axis: int | None) -> None:
        device = torch.as_tensor(seen.values).device
        if device not in self._units:
            self._units[device] = _static(units_on(device))
        units = self._units[device]
        pair = [Buffers(*map(_static, Buffers.of(seen.channels, units))) for _ in range(2)]
        self._shapes.append((name, seen.channels, seen.has_channels))
        self._buffers += pair
        axis = axis if seen.has_channels else None
        hook = _InGraphHook(self._model, self._switch, axis, units, *pair)
        self._handles.append(module.register_forward_hook(hook))

    def record_passes(self, *, wanted: bool) -> None:
        """Record the passes that begin from here on, or do not."""
        self._switch.is_on = wanted

    def begin_step(self) -> None:
        """Forget what was written before."""
        if self._together is not None:
            self._together.begin_step()

    def has_run(self) -> bool:
        """Whether a pass has run since the step began; waits for the device."""
        return self._together is not None and self._together.has_run()

    def end_step(self, record: StepRecord) -> None:
        """Compute what was written since the step began; `record` takes it up later."""
        if self._together is not None:
            split = partial(self._together.split, self._together.moments())
            record.in_graph = partial(self._take_up, split)

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _take_up(self, split: Callable[[], list[Numbers]], record: StepRecord) -> None:
        parts = iter(split())
        did_not_run = []
        for name, channels, has_channels in self._shapes:
            of_output, of_gradient = next(parts), next(parts)
            for part, rows in ((of_output, record.activations), (of_gradient, record.gradients)):
                if part.passes == 1:
                    numbers = part.values, channels, part.elements, part.length
                    rows[name] = Moments(*numbers, has_channels)
                elif part.passes > 1:
                    self._report("passes in graph", _several_passes_message(record.step))
            if not of_output.passes:
                did_not_run.append(name)
        order = [name for name in self._backward_order if name in record.gradients]
        record.gradients = {name: record.gradients[name] for name in order} | record.gradients
        if did_not_run:
            self._report("not in graph", _not_in_graph_message(record.step, did_not_run))


def _static(buffer: Tensor) -> Tensor:
    """Say that a buffer stays where it is.

    Else `mode="reduce-overhead"` would make no CUDA graph of what writes to it.
    """
    torch._dynamo.mark_static_address(buffer)
    return buffer


def _let_go(*held: object) -> None:
    """Held until this is called: the buffers."""


def _several_passes_message(step: int) -> str:
    return (
        f"in step {step} several passes ran through the graph, as under gradient accumulation or "
        "checkpointing, or where a CUDA graph is replayed several times: the layers concerned have "
        'no rows; without compiled="in-graph" they have'
    )


def _not_in_graph_message(step: int, names: list[str]) -> str:
    return (
        f"in step {step} {len(names)} layers have no rows, since in the graph they did "
        "not run, or their output is empty, has another number of channels than in the first "
        f"recorded step, or is no single tensor: {', '.join(names[:5])}; without "
        'compiled="in-graph" those that run have'
    )


def _left_out_message(names: list[str]) -> str:
    return (
        "from the second recorded step on, layers that run several times in a pass have no rows, "
        f"nor have further outputs of a layer: {', '.join(names[:5])}; without "
        'compiled="in-graph" they have'
    )


class _InGraphHook(LeftOutOfCopies):
    """The forward hook of one module."""

    __slots__ = ("_axis", "_model", "_of_gradient", "_of_output", "_switch", "_units")

    def __init__(
        self,
        model: nn.Module,
        switch: _Switch,
        axis: int | None,
        units: Tensor,
        of_output: Buffers,
        of_gradient: Buffers,
    ) -> None:
        self._model = model
        self._switch = switch
        self._axis = axis
        self._units = units
        self._of_output = of_output
        self._of_gradient = of_gradient

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Return the output through `_Observed`; None, which leaves it, if it is not recorded."""
        if not (
            self._switch.is_on
            and self._model.training
            and torch.is_grad_enabled()
            and isinstance(output, Tensor)
            and not _is_transformed(output)
            and self._fits(output)
        ):
            return None
        buffers = *self._of_output, *self._of_gradient
        return _Observed.apply(output, self._axis, self._units, *buffers)

    def _fits(self, output: Tensor) -> bool:
        """Whether the statistics of an output fit its buffer."""
        axis = self._axis
        return (
            output.is_floating_point()
            and output.layout is torch.strided
            and not output.is_nested
            and output.device == self._of_output.sums.device
            and output.numel() > 0
            and (
                axis is None
                or (output.dim() > axis and output.shape[axis] == self._of_output.sums.shape[1])
            )
        )


def _is_transformed(output: Tensor) -> bool:
    """Whether a torch.func transform runs, under which `_Observed` cannot."""
    return not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(output)


class _Observed(torch.autograd.Function):
    """The identity, which writes statistics of its input and of its gradient to buffers."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        axis: int | None,
        units: Tensor,
        sums: Tensor,
        counts: Tensor,
        sums_of_gradient: Tensor,
        counts_of_gradient: Tensor,
    ) -> Tensor:
        """Return x."""
        ctx.axis, ctx.units = axis, units
        ctx.of_gradient = sums_of_gradient, counts_of_gradient
        write(x, axis, Buffers(sums, counts), units)
        return x.clone()  # a view could not be changed in place, as by ReLU(inplace=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient."""
        sums, counts = ctx.of_gradient
        # With `create_graph=True` the backward pass is differentiated in its turn.
        with torch.no_grad():
            write(gradients[0].detach(), ctx.axis, Buffers(sums, counts), ctx.units)
        return gradients[0], None, None, None, None, None, None
