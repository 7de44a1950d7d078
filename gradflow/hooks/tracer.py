"""The tracer: a context manager that watches a model train and writes what it saw."""

import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gradflow import __version__
from gradflow.errors import TracingError
from gradflow.hooks.distributed import Processes, inner_model
from gradflow.hooks.layers import LayerTable
from gradflow.hooks.observer import LayerObserver
from gradflow.hooks.parameters import ParameterRecorder
from gradflow.hooks.records import Columns, StepRecord, concatenate, to_columns
from gradflow.hooks.schedules import Schedule, every
from gradflow.runs.writer import RunWriter

# Recorded steps kept on the device before one transfer brings their numbers over; recorded steps
# kept in memory before they are written. An epoch's end does both.
_STEPS_PER_TRANSFER = 16
_STEPS_PER_PART = 256


class Tracer:
    """Records gradients, activations, parameters and residual additions while `model` trains.

        with gradflow.Tracer(model, "runs/mine", optimizer=optimizer) as tracer:
            for epoch in range(epochs):
                ...                              # train; optimizer.step() ends a step
                tracer.end_epoch(train_loss=...)

    Args:
        model: any module; it is not changed, and trains bit for bit as without the tracer.
        folder: the run folder to write; it must not hold a run already.
        optimizer: the optimizer whose `step` ends a step; without one, call `tracer.step()` after
            the update and before the gradients are zeroed.
        schedule: record every so many steps (a whole number), or the steps for which a function
            of the step, counted from 0, is true.
        description: entries for `run.json`, such as network, seed, configuration and classes.

    The rows of a table are defined in `gradflow.runs.schema`. Layer gradients are those of the loss
    as it is back-propagated; parameter gradients those that the optimizer receives, after
    accumulation and clipping. A loss that is scaled for mixed precision is recorded scaled.

    Raises `TracingError` for a compiled model, `RunError` for an occupied folder.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | Path,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        schedule: int | Schedule = 1,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(model, torch._dynamo.OptimizedModule):
            raise TracingError(
                "a compiled model runs no hooks: give the tracer the model before torch.compile, "
                "and train that one uncompiled"
            )
        self.folder = Path(folder)
        self.epoch = 1
        self._processes = Processes(model)
        model = inner_model(model)
        self._model = model
        self._optimizer = optimizer
        self._schedule = schedule if callable(schedule) else every(schedule)
        self._description = {**_environment(model, schedule), **(description or {})}
        self._layers = LayerTable()
        self._observer = LayerObserver(model, self._layers)
        self._parameters = ParameterRecorder(model)
        self._handles: list[RemovableHandle] = []
        self._writer: RunWriter | None = None
        self._step = 0
        self._epoch_start = 0
        self._part_start = 0
        self._records: list[StepRecord] = []
        self._gathered: dict[str, list[Columns]] = {}
        self._gathered_steps = 0

    def __enter__(self) -> Self:
        if self._processes.writes:
            self._writer = RunWriter(self.folder, self._description)
        try:
            self._observer.attach()
            if self._optimizer is not None:
                begin, end = self._update_begins, self._update_ends
                self._handles.append(self._optimizer.register_step_pre_hook(begin))
                self._handles.append(self._optimizer.register_step_post_hook(end))
            self._begin_step()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()
        if kind is None:
            self._flush()
            self._close("complete")
            return
        # What was recorded is kept; an error while saving it must not hide the first one.
        with suppress(OSError):
            if self._processes.count > 1:
                # The other processes may be gone: what would have to be joined with theirs is lost.
                self._records.clear()
            self._flush()
            self._close("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    @property
    def writer(self) -> RunWriter:
        """The writer of the run folder, while the tracer is entered."""
        if self._writer is None:
            raise TracingError("the tracer is not running: use it in a `with` statement")
        return self._writer

    def step(self) -> None:
        """End the step, where no optimizer was given; call it before the gradients are zeroed."""
        if self._optimizer is not None:
            raise TracingError(
                "the optimizer given to the tracer ends the steps: do not call step() as well"
            )
        self._measure_parameters()
        self._end_step(updated=False)

    def write_table(self, name: str, columns: Mapping[str, Any]) -> None:
        """Write rows of table `name` for the present epoch: one value a row in each column.

        The column `epoch` is added. Call it before `end_epoch`, once a table and epoch.
        """
        rows = len(next(iter(columns.values())))
        with_epoch = {"epoch": [self.epoch] * rows, **columns}
        self._append(name, with_epoch, self._epoch_start, self._last_step())

    def end_epoch(self, **scalars: float | int | str | None) -> None:
        """End the epoch: store `scalars` with it, and everything recorded since the last one."""
        last_step = self._last_step()
        self._flush()
        row: Columns = {"epoch": [self.epoch], "step": [last_step]}
        row |= {name: [value] for name, value in scalars.items()}
        self._append("epochs", row, self._epoch_start, last_step)
        self.epoch += 1
        self._epoch_start = self._step
        self._begin_step()

    def _last_step(self) -> int:
        if self._step == self._epoch_start:
            raise TracingError(
                f"epoch {self.epoch} has no steps: give the tracer the optimizer, "
                "or call tracer.step() after each update"
            )
        return self._step - 1

    def _begin_step(self) -> None:
        recorded = self._schedule(self._step)
        self._observer.record = StepRecord(self.epoch, self._step) if recorded else None

    def _measure_parameters(self) -> None:
        recorded = self._observer.record is not None
        self._parameters.before(recorded=recorded, followed=self._schedule(self._step + 1))

    def _update_begins(self, *_: Any) -> None:
        self._measure_parameters()
        if self._observer.record is not None:
            self._parameters.keep_weights()

    def _update_ends(self, *_: Any) -> None:
        self._end_step(updated=self._observer.record is not None)

    def _end_step(self, *, updated: bool) -> None:
        record = self._observer.record
        self._observer.forget()
        if record is not None:
            record.parameters = self._parameters.after(updated=updated)
            record.closed = True
            self._records.append(record)
        self._step += 1
        if len(self._records) >= _STEPS_PER_TRANSFER:
            self._gather()
        if self._gathered_steps >= _STEPS_PER_PART:
            self._flush()
        self._begin_step()

    def _gather(self) -> None:
        """Bring the numbers of the kept steps over from the device."""
        for name, columns in to_columns(self._processes.join(self._records)).items():
            self._gathered.setdefault(name, []).append(columns)
        self._gathered_steps += len(self._records)
        self._records.clear()

    def _flush(self) -> None:
        """Write everything recorded so far."""
        self._gather()
        if self._layers.changed and self._processes.writes:
            self.writer.write_layers(self._layers.columns())
            self._layers.changed = False
        for name, batches in self._gathered.items():
            self._append(name, concatenate(batches), self._part_start, self._step - 1)
        self._gathered.clear()
        self._gathered_steps = 0
        self._part_start = self._step

    def _append(self, name: str, columns: Columns, first_step: int, last_step: int) -> None:
        if self._processes.writes:
            self.writer.append(name, columns, first_step, last_step)

    def _close(self, status: str) -> None:
        if self._processes.writes:
            self.writer.close(status)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._observer.detach()


def _environment(model: nn.Module, schedule: int | Schedule) -> dict[str, Any]:
    """What `run.json` says of the surroundings of every run."""
    parameter = next(model.parameters(), None)
    return {
        "network": type(model).__name__,
        "versions": {
            "gradflow": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "device": "cpu" if parameter is None else str(parameter.device),
        "threads": torch.get_num_threads(),
        "tracing": {
            "schedule": f"every {schedule} steps" if isinstance(schedule, int) else "a function",
            "layer_gradients": "as back-propagated; passes of one step taken as one batch",
            "parameter_gradients": "as the optimizer receives them, after accumulation, clipping",
        },
    }
