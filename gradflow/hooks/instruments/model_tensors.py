"""What the model takes and returns, in the first forward pass of each recorded step."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.instruments.samples import STATISTICS, Sample, sample_of, statistics_of
from gradflow.hooks.layers import tensors_of
from gradflow.hooks.observation.hook import Hook
from gradflow.hooks.recording.records import Columns, StepRecord
from gradflow.runs.format.model_tables import INPUT, MODEL_TENSORS, OUTPUT

# Of a model's inputs, and of its outputs, as many tensors are recorded: the first ones.
_MOST_TENSORS = 8
_UNREADABLE = (RuntimeError, TypeError, NotImplementedError)
_WHOLE = "[]"  # the place of an output that is a single tensor


@dataclass(frozen=True)
class _Seen:
    """A tensor that the model has taken or returned."""

    direction: str
    place: str
    shape: str
    type: str
    autocast: str | None
    sample: Sample


class ModelTensors(Instrument):
    """Keeps a small part of each tensor that the model takes and returns, until the next transfer.

    A pass in evaluation mode counts once a backward pass has begun in the step. A tensor that
    cannot be read, such as one without memory, is left out, which `run.json` says.

    Args:
        model: the whole model.
        first_step_only: record the first step alone: the others run in a compiled graph.
    """

    key = "model_tensors"
    several_processes = True  # each sees its part of the batch, and the first one writes

    def __init__(self, model: nn.Module, *, first_step_only: bool = False) -> None:
        self.record: StepRecord | None = None
        self._model = model
        self._first_step_only = first_step_only
        self._has_recorded = False
        self._handles: list[RemovableHandle] = []
        self._names = _argument_names(model)
        self._is_awaited = False
        self._taken: list[_Seen] = []
        self._pending: list[_Seen] = []
        self._found: list[_Seen] = []
        self._not_read: dict[str, str] = {}

    def begin_step(self, record: StepRecord | None) -> None:
        """Have hooks on the model while a step is recorded."""
        if self._first_step_only and self._has_recorded:
            record = None
        self.record = record
        self._is_awaited = False
        self._taken, self._pending, self._found = [], [], []
        if record is None:
            self.detach()
        elif not self._handles:
            called, returned = Hook(self, self._called), Hook(self, self._returned)
            self._handles = [
                self._model.register_forward_pre_hook(called, with_kwargs=True),
                self._model.register_forward_hook(returned),
            ]

    def forward_begins(self, record: StepRecord) -> None:
        """The next call of the model is the pass that begins."""
        self._is_awaited = not self._found

    def backward_begins(self, record: StepRecord) -> None:
        """Now the passes in evaluation mode are known to be of the step."""
        if not self._found:
            self._found = self._pending

    def end_step(self, record: StepRecord) -> None:
        """Leave what was seen."""
        record.further[self.key] = self._found
        self._has_recorded = self._has_recorded or bool(self._found)

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """Return the rows of the table; this waits for the device."""
        kept = [(record, one) for record in records for one in record.further.get(self.key, ())]
        known = self._statistics([one for _, one in kept])
        rows = [row for row, one in zip(kept, known, strict=True) if one is not None]
        found = [one for one in known if one is not None]
        if not rows:
            return {}
        numbers = {name: np.array([one[name] for one in found]) for name in STATISTICS}
        columns: Columns = {
            "epoch": _array([record.epoch for record, _ in rows]),
            "step": _array([record.step for record, _ in rows]),
            **{
                name: _names([getattr(one, name) for _, one in rows])
                for name in ("direction", "place", "shape", "type", "autocast")
            },
            "read": _array([one.sample.values.numel() for _, one in rows]),
            **{name: np.ma.array(column) for name, column in numbers.items()},
        }
        for name in ("repeated", "batch_variance", "distance_from_probabilities"):
            columns[name] = np.ma.masked_invalid(numbers[name])
        columns["nonfinite"] = _array(numbers["nonfinite"].astype(np.int64))
        columns["whole"] = _array(numbers["whole"] == 1)
        return {MODEL_TENSORS.name: {one.name: columns[one.name] for one in MODEL_TENSORS.columns}}

    def summary(self) -> Mapping[str, Any]:
        """Return why tensors were left out, by their place, if some were."""
        return {"model_tensors_not_read": self._not_read} if self._not_read else {}

    def detach(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _called(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if self._is_awaited:
            given = {**self._by_name(args), **kwargs}
            self._taken = self._seen(INPUT, given)

    def _returned(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._is_awaited:
            return
        self._is_awaited = False
        passed = [*self._taken, *self._seen(OUTPUT, {"": output})]
        self._taken = []
        if self._model.training:
            self._found = passed
        else:
            self._pending = self._pending or passed

    def _seen(self, direction: str, given: Mapping[str, Any]) -> list[_Seen]:
        found: list[_Seen] = []
        for name, place, tensor in _places(given):
            if len(found) == _MOST_TENSORS:
                break
            full = f"{name}{place}" or _WHOLE
            try:
                sample = sample_of(tensor)
            except _UNREADABLE as error:
                self._not_read.setdefault(f"{direction} {full}", str(error))
                continue
            shape = "x".join(map(str, tensor.shape)) or "1"
            kind, autocast = _type_name(tensor.dtype), _autocast(tensor.device.type)
            found.append(_Seen(direction, full, shape, kind, autocast, sample))
        return found

    def _statistics(self, seen: Sequence[_Seen]) -> list[dict[str, float] | None]:
        """The statistics of each, those of like tensors computed together; None if unreadable."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for number, one in enumerate(seen):
            values, axes = one.sample.values, one.sample.whole_axes
            key = (one.direction, values.shape, values.dtype, values.device, axes)
            alike.setdefault(key, []).append(number)
        found: list[dict[str, float] | None] = [None] * len(seen)
        for (direction, *_), numbers in alike.items():
            samples = [seen[number].sample for number in numbers]
            try:
                statistics = statistics_of(samples, of_outputs=direction == OUTPUT)
            except _UNREADABLE as error:
                one = seen[numbers[0]]
                self._not_read.setdefault(f"{direction} {one.place}", str(error))
                continue
            for number, one_row in zip(numbers, statistics, strict=True):
                found[number] = one_row
        return found

    def _by_name(self, args: Sequence[Any]) -> dict[str, Any]:
        """The arguments given by position, by their names, or by their places after those."""
        return {
            self._names[place] if place < len(self._names) else f"[{place}]": one
            for place, one in enumerate(args)
        }


def _places(given: Mapping[str, Any]) -> Iterator[tuple[str, str, Tensor]]:
    for name, one in given.items():
        for place, tensor in tensors_of(one, of_any_type=True):
            if tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_meta:
                yield name, place, tensor


def _autocast(device: str) -> str | None:
    try:
        enabled = torch.is_autocast_enabled(device)
        return _type_name(torch.get_autocast_dtype(device)) if enabled else None
    except RuntimeError:  # the device has no autocast
        return None


@cache
def _type_name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _argument_names(model: nn.Module) -> list[str]:
    """The names of the arguments of forward that can be given by position."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds]


def _array(values: Any) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.array(np.asarray(values), mask=False)


def _names(values: Sequence[str | None]) -> np.ma.MaskedArray[Any, Any]:
    filled = np.array([one or "" for one in values], dtype=object)
    return np.ma.array(filled, mask=[one is None for one in values])
