"""Whether gradients of the step before are still there as a step's backward passes begin.

`optimizer.zero_grad()` removes them or sets them to zero. Where it was forgotten, an optimizer gets
the sum of all gradients since the beginning. Passes of one step may add up their gradients, as in
gradient accumulation: so what counts is the least over the passes of a step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.processes.tensors import local_part
from gradflow.hooks.recording.records import Columns, StepRecord, UpdatedBy
from gradflow.hooks.updates.known import is_trained
from gradflow.hooks.wrappers import named_parameters
from gradflow.runs.format.model_tables import GRADIENTS_BEFORE
from gradflow.runs.format.update_tables import NO_OPTIMIZER

# That a pass runs may show only when the first gradient has arrived, which is there then already:
# so one parameter alone would not tell.
_WATCHED = 4


class GradientsBefore(Instrument):
    """Looks at the `.grad` of the few smallest parameters of each optimizer.

    Args:
        model: the whole model.
    """

    key = "gradients_before"
    several_processes = True  # each looks at what it holds, and the first one writes

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._watched: dict[str, tuple[Parameter, str | None]] = {}
        self._is_settled = False
        self._passes: list[dict[str, Tensor | float]] = []

    def begin_step(self, record: StepRecord | None) -> None:
        """Forget the passes of the step before."""
        self._passes = []

    def backward_begins(self, record: StepRecord) -> None:
        """Note the largest element of each gradient that is there."""
        if not self._watched:
            self._choose({})
        found: dict[str, Tensor | float] = {}
        there: dict[str, Tensor] = {}
        for name, (parameter, _) in self._watched.items():
            found[name] = 0.0
            if parameter.grad is not None and parameter.grad.layout is torch.strided:
                gradient = local_part(parameter.grad)
                if gradient.numel():
                    there[name] = gradient
        if there:
            with torch.no_grad():
                largest = torch._foreach_norm(list(there.values()), float("inf"))
            found.update(zip(there, largest, strict=True))
        self._passes.append(found)

    def end_step(self, record: StepRecord) -> None:
        """Leave what was seen, and choose the parameters anew if there are other optimizers."""
        # Which optimizer has a parameter shows as it steps; so it does in the first step, too.
        known = {
            name: (parameter, _optimizer_of(name, record.updated_by) or optimizer)
            for name, (parameter, optimizer) in self._watched.items()
        }
        record.further[self.key] = (self._passes, known)
        if not self._is_settled or any(
            optimizer != _optimizer_of(name, record.updated_by)
            for name, (_, optimizer) in self._watched.items()
        ):
            self._choose(record.updated_by)
            self._is_settled = True

    def model_has_changed(self) -> None:
        """Choose the parameters anew."""
        self._watched, self._is_settled = {}, False

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """Return the rows of the table; this waits for the device."""
        rows = []
        numbers = _read([one for record in records for one in record.further[self.key][0]])
        for record in records:
            passes, watched = record.further[self.key]
            least = [next(numbers) for _ in passes]
            for name, (_, optimizer) in watched.items() if passes else ():
                values = [one[name] for one in least if name in one]
                if values:
                    rows.append((record, name, optimizer, float(np.min(values))))
        if not rows:
            return {}
        optimizers = [one for _, _, one, _ in rows]
        columns: Columns = {
            "epoch": np.ma.array([record.epoch for record, *_ in rows]),
            "step": np.ma.array([record.step for record, *_ in rows]),
            "parameter": np.ma.array(np.array([name for _, name, *_ in rows], dtype=object)),
            "optimizer": np.ma.array(
                np.array([one or "" for one in optimizers], dtype=object),
                mask=[one is None for one in optimizers],
            ),
            "carried_over": np.ma.array([value for *_, value in rows]),
        }
        return {GRADIENTS_BEFORE.name: columns}

    def _choose(self, updated_by: Mapping[str, UpdatedBy]) -> None:
        by_optimizer: dict[str | None, list[tuple[int, str, Parameter]]] = {}
        for name, parameter in named_parameters(self._model):
            optimizer = _optimizer_of(name, updated_by)
            if is_trained(parameter) and optimizer != NO_OPTIMIZER:
                entry = parameter.numel(), name, parameter
                by_optimizer.setdefault(optimizer, []).append(entry)
        self._watched = {
            name: (parameter, optimizer)
            for optimizer, entries in by_optimizer.items()
            for _, name, parameter in sorted(entries, key=lambda one: one[0])[:_WATCHED]
        }


def _optimizer_of(name: str, updated_by: Mapping[str, UpdatedBy]) -> str | None:
    known = updated_by.get(name)
    return None if known is None else known.optimizer


def _read(passes: Sequence[Mapping[str, Tensor | float]]) -> Any:
    """Yield the numbers of each pass by name, with a single transfer from each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for one in passes:
        for value in one.values():
            if isinstance(value, Tensor):
                by_device.setdefault(value.device, []).append(value.float())
    read = {
        device: iter(torch.stack(values).cpu().tolist()) for device, values in by_device.items()
    }
    for one in passes:
        yield {
            name: next(read[value.device]) if isinstance(value, Tensor) else value
            for name, value in one.items()
        }
