"""The instrument that measures gradients and outputs by position."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.errors import TracingError
from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.instruments.positions.profile import (
    Squares,
    binned,
    first_positions,
    on_host,
    squares_of,
)
from gradflow.hooks.instruments.positions.recurrence import Recurrence
from gradflow.hooks.instruments.positions.recurrent_inputs import InputHook, is_fused
from gradflow.hooks.instruments.positions.time_axis import TimeAxes
from gradflow.hooks.observation.hook import ModuleHooks
from gradflow.hooks.observation.layer_calls import LayerRan
from gradflow.hooks.options import RecordingOptions
from gradflow.hooks.recording.records import Columns, StepRecord
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.hooks.selection.modules import select_modules

_ROLES = frozenset(("block", "embedding", "recurrent", "attention"))
# Modules of these may say which axis is that of time, or have inputs that are watched.
_TELLING_ROLES = frozenset(("recurrent", "attention"))
# In fewer calls of a module there is hardly a course of time.
_FEWEST_CALLS = 4
_LOOPS = "positions of calls"  # the entry of a record that names the modules in a loop
_OUTPUT, _INPUT, _CALLS = "output", "input", "calls"


class GradientsByPosition(Instrument):
    """Fills the table `positions`.

    Of the outputs [N, T, H] of embeddings, recurrent and attention layers, and of blocks; if some
    blocks add a skip, of these alone. Of the inputs of recurrent layers that run through time in
    one call. Of the calls of modules in a loop, whose numbers the tracer has already.

    Args:
        model: the whole model.
        options: what is recorded.
    """

    key = "positions"
    wants_layers = True

    def __init__(self, model: nn.Module, options: RecordingOptions) -> None:
        self._model = model
        self._options = options
        self._axes = TimeAxes()
        self._recurrence = Recurrence()
        self._hooks = ModuleHooks()
        self._fused: list[tuple[str, nn.Module]] | None = None
        self._inputs: dict[int, _Watched] = {}
        self._leaf_handles: list[RemovableHandle] = []
        self._trunk: frozenset[str] | None = None
        self._found: dict[tuple[str, str], _Profile] = {}

    @property
    def has_work(self) -> bool:
        """Whether the model has layers that say something of positions."""
        kinds = (nn.RNNBase, nn.RNNCellBase, nn.Embedding, nn.MultiheadAttention)
        return any(isinstance(module, kinds) for module in self._model.modules())

    def begin_step(self, record: StepRecord | None) -> None:
        """A step begins; in one that is not recorded, the model has no hooks of ours."""
        self._found = {}
        self._let_go_of_leaves()
        if record is None or self._options.runs_compiled:
            self._hooks.remove()
            return
        self._axes.begin_step()
        self._put_hooks()

    def forward_begins(self, record: StepRecord) -> None:
        """A forward pass begins."""
        self._axes.begin_pass()
        self._inputs.clear()

    def layer_ran(self, ran: LayerRan) -> bool:
        """Watch the gradient of an output; called for each layer that ran."""
        layer, output = ran.layer, ran.output
        if layer.endswith("]"):  # a further tensor of an output
            return False
        self._recurrence.note(ran.name, layer, ran.module, output)
        if ran.role in _ROLES:
            self._watch_output(ran, layer, output)
            return not self._is_settled(ran)
        return not self._recurrence.knows(ran.name)

    def _is_settled(self, ran: LayerRan) -> bool:
        """Whether there is nothing to find in outputs of this layer that have this shape."""
        if not self._recurrence.knows(ran.name) or ran.role in _TELLING_ROLES:
            return False
        return ran.output.dim() != 3 or self._is_left_out(ran) or self._axes.are_hopeless

    def _watch_output(self, ran: LayerRan, layer: str, output: Tensor) -> None:
        watched = self._inputs.pop(id(ran.module), None) if self._inputs else None
        if watched is not None:
            watched.layer, watched.record = layer, ran.record
        if self._is_left_out(ran) or output.grad_fn is None or type(output) is not Tensor:
            return
        were_hopeless = self._axes.are_hopeless
        self._axes.note(layer, ran.module, output, may_look=ran.role in {"block", "attention"})
        if were_hopeless and not self._axes.are_hopeless:
            self.ask_again()
        axis = self._axes.of(layer)
        if output.dim() == 3 and not output.is_nested:
            one = _Watched(self, _OUTPUT, axis, tuple(output.shape), ran.channel_axis)
            one.layer, one.record = layer, ran.record
            one.is_block = ran.role == "block"
            if axis is not None:
                one.activation = squares_of(output, axis)
            output.register_hook(one)

    def gradient_arrived(self, one: "_Watched", gradient: Tensor) -> None:
        """Take the gradient of a tensor that is watched."""
        if type(gradient) is not Tensor or not self.belongs_to_step():
            return
        axis = one.axis
        if axis is None:
            axis = self._axes.of(one.layer, one.shape, one.channel_axis)
        if axis is None or one.shape[axis] < 2:
            return
        found = squares_of(gradient, axis, one.sizes)
        if found is not None:
            new = _Profile(is_block=one.is_block)
            self._found.setdefault((one.layer, one.tensor), new).add(found, one.activation)

    def end_step(self, record: StepRecord) -> None:
        """Leave what was found in the record."""
        self._recurrence.end_step()
        self._inputs.clear()
        self._let_go_of_leaves()
        if self._trunk is None and record.gradients:
            self._trunk = _adding(record.junctions)
        found, self._found = self._found, {}
        record.further[self.key] = {
            key: one
            for key, one in found.items()
            if not (one.is_block and self._is_beside_trunk(key[0]))
        }
        record.further[_LOOPS] = self._recurrence.modules

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """Return the rows of the table `positions`."""
        rows: list[_Rows] = []
        measured = [
            (record, key, one)
            for record in records
            for key, one in record.further.get(self.key, {}).items()
        ]
        squares = on_host([part for _, _, one in measured for part in one.parts])
        parts = iter(squares)
        for record, (layer, tensor), one in measured:
            gradient, activation = one.by_position(parts)
            rows.append(_Rows(record, layer, tensor, gradient, activation))
        rows += self._rows_of_calls(records)
        return {self.key: _to_columns(rows)} if rows else {}

    def model_has_changed(self) -> None:
        """Look at the modules anew."""
        self._recurrence.model_has_changed()
        self._axes, self._trunk, self._fused = TimeAxes(), None, None
        self._put_hooks()

    def detach(self) -> None:
        """Take off all hooks."""
        self._hooks.remove()
        self._let_go_of_leaves()

    def _put_hooks(self) -> None:
        if self._fused is None:
            try:
                chosen = select_modules(self._model, self._options.observe)
            except TracingError:  # nothing is left to observe, which the tracer says
                chosen = []
            self._fused = [(name, module) for name, module, _ in chosen if is_fused(module)]
        hook = InputHook(self._watch_input)
        self._hooks.keep_on(
            self._fused,
            lambda _, module: [module.register_forward_pre_hook(hook, with_kwargs=True)],
        )

    def _watch_input(self, module: nn.Module, x: Tensor, axis: int, sizes: Tensor | None) -> None:
        one = _Watched(self, _INPUT, axis, tuple(x.shape))
        one.sizes = sizes
        one.activation = squares_of(x, axis, sizes)
        self._inputs[id(module)] = one
        handle = x.register_hook(one)
        if x.grad_fn is None:
            self._leaf_handles.append(handle)  # one of the user's outlasts the step

    def _let_go_of_leaves(self) -> None:
        for handle in self._leaf_handles:
            handle.remove()
        self._leaf_handles.clear()

    def _is_left_out(self, ran: LayerRan) -> bool:
        return ran.role == "block" and self._is_beside_trunk(ran.layer)

    def _is_beside_trunk(self, block: str) -> bool:
        """Whether a block adds no skip, while others do."""
        trunk = self._trunk
        return bool(trunk) and block.split("#", maxsplit=1)[0] not in (trunk or ())

    def _rows_of_calls(self, records: Sequence[StepRecord]) -> "list[_Rows]":
        """The rows of modules in a loop: the layers that are their calls, in order."""
        series = [
            (record, name, calls)
            for record in records
            for name in record.further.get(_LOOPS, ())
            if len(calls := _calls_of(name, record.gradients)) >= _FEWEST_CALLS
        ]
        if not series:
            return []
        asked = [(record, call) for record, _, calls in series for call in calls.values()]
        gradients = iter(to_statistics([r.gradients[call] for r, call in asked])["norm"])
        known = [r.activations.get(call) for r, call in asked]
        rms = iter(to_statistics([one for one in known if one is not None])["rms"])
        activations = iter([np.nan if one is None else next(rms) for one in known])
        rows = []
        for record, name, calls in series:
            by_call = np.full((2, max(calls)), np.nan)
            for number in calls:
                by_call[:, number - 1] = next(gradients) ** 2, next(activations) ** 2
            rows.append(_Rows(record, name, _CALLS, *by_call))
        return rows


class _Watched:
    """A tensor whose gradient is awaited; it must not refer to the tensor, which keeps its hooks.

    Fields:
        layer, record: whose it is; not known at once of an input.
        tensor: what it is of the layer.
        axis: its time axis; None if the pass has not told yet.
        sizes: of a packed sequence.
        activation: its own squares, if they are known.
    """

    def __init__(
        self,
        instrument: GradientsByPosition,
        tensor: str,
        axis: int | None,
        shape: tuple[int, ...],
        channel_axis: int | None = None,
    ) -> None:
        self._instrument = instrument
        self.tensor = tensor
        self.axis = axis
        self.shape = shape
        self.channel_axis = channel_axis
        self.layer = ""
        self.record: Any = None
        self.sizes: Tensor | None = None
        self.activation: Squares | None = None
        self.is_block = False

    def __call__(self, gradient: Tensor) -> None:
        """Take the gradient, unless the step has ended."""
        if self.record is not None and not self.record.closed:
            self._instrument.gradient_arrived(self, gradient)


class _Profile:
    """What was measured of one tensor in a step; several passes count as one batch.

    A pass over a sequence of another length than the first one's is left out.
    """

    def __init__(self, *, is_block: bool) -> None:
        self.is_block = is_block
        self._gradients: list[Squares] = []
        self._activations: list[Squares | None] = []

    def add(self, gradient: Squares, activation: Squares | None) -> None:
        """Add a pass."""
        if not self._gradients or self._gradients[0].positions == gradient.positions:
            self._gradients.append(gradient)
            self._activations.append(activation)

    @property
    def parts(self) -> list[Squares]:
        """What is to be transferred, for `by_position`."""
        return [*self._gradients, *(one for one in self._activations if one is not None)]

    def by_position(self, parts: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the square of the gradient's norm and of the output's rms, [T] each."""
        gradient = _total([next(parts) for _ in self._gradients])
        known = [one for one in self._activations if one is not None]
        squares = [next(parts) for _ in known]
        if len(known) < len(self._activations):
            return gradient, np.full(len(gradient), np.nan)
        return gradient, _total(squares) / _total([_elements(one) for one in known])


def _total(arrays: list[np.ndarray]) -> np.ndarray:
    total: np.ndarray = arrays[0] if len(arrays) == 1 else np.sum(arrays, 0)
    return total


class _Rows(NamedTuple):
    """A course in time, of which the bins are rows: squares by position, [T] each."""

    record: StepRecord
    layer: str
    tensor: str
    gradient: np.ndarray
    activation: np.ndarray


def _elements(one: Squares) -> np.ndarray:
    """The number of elements of each position, [T]."""
    if one.sizes is None:
        return np.full(one.positions, one.elements / one.positions)
    rows = one.sizes.double()
    elements: np.ndarray = (rows * (one.elements / rows.sum())).numpy()
    return elements


def _adding(junctions: Iterable[str]) -> frozenset[str]:
    """The names of the modules that add a skip, from those of their additions."""
    return frozenset(re.sub(r"[+#]\d+$", "", name) for name in junctions)


def _calls_of(module: str, layers: Mapping[str, Moments]) -> dict[int, str]:
    """The layers that are calls of `module`, by the number of the call, counted from 1."""
    first = {1: module} if module in layers else {}
    prefix = f"{module}#"
    later = {
        int(n): one
        for one in layers
        if one.startswith(prefix) and (n := one[len(prefix) :]).isdigit()
    }
    return {**first, **later}


def _to_columns(rows: "list[_Rows]") -> Columns:
    lengths = [len(one.gradient) for one in rows]
    starts_of = {length: first_positions(length) for length in set(lengths)}
    ends_of = {length: np.append(one[1:], length) - 1 for length, one in starts_of.items()}
    bins = [len(starts_of[length]) for length in lengths]
    gradient = np.sqrt(_binned([one.gradient for one in rows]))
    rms = np.sqrt(_binned([one.activation for one in rows]))
    columns = {
        "epoch": np.repeat([one.record.epoch for one in rows], bins),
        "step": np.repeat([one.record.step for one in rows], bins),
        "layer": np.repeat(np.array([one.layer for one in rows], dtype=object), bins),
        "tensor": np.repeat(np.array([one.tensor for one in rows], dtype=object), bins),
        "bin": np.concatenate([np.arange(size) for size in bins]),
        "first_position": np.concatenate([starts_of[length] for length in lengths]),
        "last_position": np.concatenate([ends_of[length] for length in lengths]),
    }
    return {
        **{name: np.ma.array(values, mask=False) for name, values in columns.items()},
        "gradient_norm": np.ma.array(gradient),
        "rms": np.ma.masked_invalid(rms),
    }


def _binned(courses: list[np.ndarray]) -> np.ndarray:
    """The bins of each, one after the other."""
    same = groupby(courses, len)  # most often all are as long
    return np.concatenate([binned(np.stack(list(some))).reshape(-1) for _, some in same])
