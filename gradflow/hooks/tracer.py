"""The tracer: a context manager that watches a model train and writes what it saw."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gradflow.errors import RunError, TracingError
from gradflow.hooks.distributed import Processes, inner_model
from gradflow.hooks.environment import environment
from gradflow.hooks.layers import LayerTable
from gradflow.hooks.nonfinite import sentence
from gradflow.hooks.observation.layer_observer import LayerObserver
from gradflow.hooks.parameters import ParameterRecorder, in_another_step
from gradflow.hooks.records import Columns, StepRecord
from gradflow.hooks.reduction.fused import prepare
from gradflow.hooks.refusals import refuse_in_processes, refuse_silence, refuse_untraceable
from gradflow.hooks.scaling import ScalerWatch, optimizer_scale
from gradflow.hooks.schedules import Budget, HistogramSteps, Schedule, as_schedule
from gradflow.hooks.selection import Selection, select_modules
from gradflow.hooks.state import Memory, place_in
from gradflow.hooks.store import RecordStore
from gradflow.runs.format.limits import restoring
from gradflow.runs.writing.run import NullRunWriter, RunWriter


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
            of the step, counted from 0, is true: see `gradflow.hooks.schedules`, which also has
            `Budget`, a share of the time.
        histograms: record as well how many elements of each layer's output, and of its gradient,
            have each order of magnitude: at every recorded step, at every n-th of them (a whole
            number), or at those for which a function of the step is true.
        description: entries for `run.json`, such as network, seed, configuration and classes.
        observe: which modules to observe: name patterns, classes, functions of (name, module), one
            or several; by default all with a role. `gradflow.layers` shows what that is.
        scaler: the `torch.amp.GradScaler` that scales the loss: gradients are recorded without the
            scale, and steps that it skips are marked in the table `steps`. Needs the optimizer.
        resume: go on with the run that is in the folder from this state, which `state_dict` gave
            at an epoch's end: rows recorded after it are removed. An empty one starts over.
        stop_on_nonfinite: end the run at the end of the first recorded step with a nan or infinite
            value, with an error that says where it stood. Reads values back at every recorded step.

    The rows of a table are defined in `gradflow.runs.format.schema`. Layer gradients are those of
    the loss as it is back-propagated; parameter gradients those that the optimizer receives, after
    accumulation and clipping. `docs/tracer.md` says what is supported and what is not.

    Raises `TracingError` for a compiled, sharded or replicated model and where nothing is observed,
    `RunError` for an occupied folder.
    """

    def __init__(  # noqa: PLR0913 - options of a public class, all by keyword
        self,
        model: nn.Module,
        folder: str | Path,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        schedule: int | Schedule = 1,
        histograms: bool | int | Schedule = False,
        description: Mapping[str, Any] | None = None,
        observe: Selection | None = None,
        scaler: torch.amp.GradScaler | None = None,
        stop_on_nonfinite: bool = False,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_untraceable(model)
        self.folder = Path(folder)
        self.epoch = 1
        self._processes = Processes(model)
        model = inner_model(model)
        self._model = model
        self._optimizer = optimizer
        self._schedule, words = as_schedule(schedule)
        self._histograms = HistogramSteps(histograms)
        if self._processes.count > 1:
            refuse_in_processes(
                histograms=self._histograms.any, budget=isinstance(self._schedule, Budget)
            )
        self._planned: tuple[int, bool] | None = None
        self._description = {
            **environment(model, words, str(self._histograms)),
            **(description or {}),
        }
        self._layers = LayerTable()
        self._observer = LayerObserver(model, select_modules(model, observe), self._layers)
        self._parameters = ParameterRecorder(model)
        self._scaler: ScalerWatch | None = None
        if scaler is not None:
            if optimizer is None:
                raise TracingError("a scaler skips steps of an optimizer: give the tracer both")
            self._scaler = ScalerWatch(scaler, optimizer, self._step_is_skipped)
        self._stop_on_nonfinite = stop_on_nonfinite
        self._resume = resume
        self._handles: list[RemovableHandle] = []
        self._writer: RunWriter | None = None
        self._store: RecordStore | None = None
        self._step = 0
        self._step_began = 0.0
        self._epoch_start = 0

    def __enter__(self) -> Self:
        refuse_untraceable(self._model)
        self._writer = self._open_writer()
        self._store = RecordStore(self._writer, self._processes, self._layers)
        if self._resume:
            with restoring(f"the tracer's state for {self.folder}"):
                self._load_state_dict(self._resume)
        for device in {parameter.device for parameter in self._model.parameters()}:
            prepare(device)
        try:
            self._observer.attach()
            if self._scaler is not None:
                self._scaler.attach()
            if self._optimizer is not None:
                begin, end = self._update_begins, self._update_ends
                self._handles.append(self._optimizer.register_step_pre_hook(begin))
                self._handles.append(self._optimizer.register_step_post_hook(end))
            self._begin_step()
        except BaseException:
            self._detach()
            self.writer.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()
        try:
            if kind is None:
                self.store.flush(self._step)
                self._close("complete")
                return
            # What was recorded is kept; an error while saving it must not hide the first one.
            with suppress(RunError):
                if self._processes.count > 1:
                    # The other processes may be gone: what would be joined with theirs is lost.
                    self.store.drop_pending()
                self.store.flush(self._step)
                self._close("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")
        finally:
            self.writer.release()

    @property
    def writer(self) -> RunWriter:
        """The writer of the run folder, while the tracer is entered."""
        if self._writer is None:
            raise TracingError("the tracer is not running: use it in a `with` statement")
        return self._writer

    @property
    def store(self) -> RecordStore:
        """What was recorded and is not written yet, while the tracer is entered."""
        if self._store is None:
            raise TracingError("the tracer is not running: use it in a `with` statement")
        return self._store

    @property
    def recording(self) -> bool:
        """Whether the step under way is recorded."""
        return self._observer.record is not None

    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return self._step

    def step(self) -> None:
        """End the step, where no optimizer was given; call it before the gradients are zeroed."""
        if self._optimizer is not None:
            raise TracingError(
                "the optimizer given to the tracer ends the steps: do not call step() as well"
            )
        self._measure_parameters(updating=False)
        self._end_step(updated=False)

    def skip_step(self) -> None:
        """Count a step whose update is left out, and mark it as skipped; instead of the update."""
        self._step_is_skipped()

    def state_dict(self) -> dict[str, Any]:
        """What a tracer needs to go on with this run, for its argument `resume`.

        Tensors, numbers and names only, so that `torch.load(..., weights_only=True)` reads it back.
        Keep it beside the weights and the optimizer's state, at the end of an epoch.

        Raises `TracingError` within an epoch.
        """
        if self._step != self._epoch_start:
            raise TracingError("take the tracer's state right after end_epoch, not within an epoch")
        return {
            "epoch": self.epoch,
            "step": self._step,
            "nonfinite": self.store.nonfinite,
            "memory": self._memory().state_dict(),
        }

    def first_nonfinite(self) -> dict[str, Any] | None:
        """The first nan or infinite value recorded in a step that has ended, None without one.

        Keys: epoch, step, layer, direction (forward or backward), and count, how many there were.
        Waits for the device.
        """
        self.store.gather()
        return self.store.nonfinite

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record no forward pass that begins in here, nor its backward pass, wherever that runs.

        For passes that belong to no step of this model: a discriminator that judges for the
        generator's sake, a penalty.
        """
        record, self._observer.record = self._observer.record, None
        try:
            yield
        finally:
            self._observer.record = record

    def write_table(self, name: str, columns: Mapping[str, Any]) -> None:
        """Write rows of table `name` for the present epoch: one value a row in each column.

        The column `epoch` is added. Call it before `end_epoch`, once a table and epoch.
        """
        rows = len(next(iter(columns.values())))
        with_epoch = {"epoch": [self.epoch] * rows, **columns}
        self.writer.append(name, with_epoch, self._epoch_start, self._last_step())

    def end_epoch(self, **scalars: float | int | str | None) -> None:
        """End the epoch: store `scalars` with it, and everything recorded since the last one."""
        last_step = self._last_step()
        self.store.flush(self._step)
        row: Columns = {"epoch": [self.epoch], "step": [last_step]}
        row |= {name: [value] for name, value in scalars.items()}
        self.writer.append("epochs", row, self._epoch_start, last_step)
        self.epoch += 1
        self._epoch_start = self._step
        self._begin_step()

    def _open_writer(self) -> RunWriter:
        kind = RunWriter if self._processes.writes else NullRunWriter
        if self._resume is None:
            return kind(self.folder, self._description)
        with restoring(f"the tracer's state for {self.folder}"):
            epoch, step = place_in(self._resume)
        return kind.resume(self.folder, epoch=epoch, step=step)

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self._step = state["epoch"], state["step"]
        self._epoch_start = self._step
        self._memory().load_state_dict(state["memory"])
        self.store.nonfinite = state["nonfinite"]
        self.store.start_at(self._step)

    def _memory(self) -> Memory:
        junctions = self._observer.junctions
        return Memory(self._layers, junctions, self._parameters, self._schedule)

    def _last_step(self) -> int:
        if self._step == self._epoch_start:
            raise TracingError(
                f"epoch {self.epoch} has no steps: give the tracer the optimizer, "
                "or call tracer.step() after each update"
            )
        return self._step - 1

    def _wants(self, step: int) -> bool:
        """Whether `step` is recorded; the schedule is asked once a step."""
        if self._planned is None or self._planned[0] != step:
            self._planned = (step, bool(self._schedule(step)))
        return self._planned[1]

    def _begin_step(self) -> None:
        record: StepRecord | None = None
        if self._wants(self._step):
            record = StepRecord(self.epoch, self._step, self._histograms(self._step))
        self._observer.record = record
        self._step_began = time.monotonic()

    def _measure_parameters(self, *, updating: bool) -> None:
        record = self._observer.record
        if record is not None and self._scaler is not None:
            record.scale = self._scaler.scale()
            record.parameter_scale, record.skipped = optimizer_scale(self._optimizer)
        followed = self._wants(self._step + 1)
        self._parameters.before(recorded=record is not None, followed=followed, updating=updating)

    def _update_begins(self, *_: Any) -> None:
        if in_another_step(self._optimizer):
            return
        if self._scaler is not None:
            self._scaler.note_step()
        self._measure_parameters(updating=True)

    def _update_ends(self, *_: Any) -> None:
        if in_another_step(self._optimizer):
            return
        self._end_step(updated=self._observer.record is not None)

    def _step_is_skipped(self) -> None:
        """The scaler did not call the optimizer: the step counts, and is marked."""
        self._measure_parameters(updating=False)
        if self._observer.record is not None:
            self._observer.record.skipped = True
        self._end_step(updated=False)

    def _end_step(self, *, updated: bool) -> None:
        record = self._observer.record
        self._observer.end_step()
        if record is not None:
            record.parameters = self._parameters.after(updated=updated)
            record.closed = True
            self.store.add(record)
            self._histograms.add_recorded()
        self._step += 1
        writing_began = time.monotonic()
        if record is not None and not self._layers:
            raise refuse_silence(record.step)
        self.store.move_on(self._step, at_once=self._stop_on_nonfinite)
        if isinstance(self._schedule, Budget):
            end = time.monotonic()
            self._schedule.add_step(
                recorded=record is not None,
                seconds=end - self._step_began,
                writing=end - writing_began,
            )
        self._begin_step()
        if self._stop_on_nonfinite and self.store.nonfinite is not None:
            self.store.flush(self._step)
            raise TracingError(sentence(self.store.nonfinite))

    def _close(self, status: str) -> None:
        self.writer.describe(residual_additions=self._observer.junctions.summary())
        if self._step:
            unreached = [name for name in self._observer.names if name not in self._layers]
            self.writer.describe(unreached_layers=unreached)
        if isinstance(self._schedule, Budget):
            self.writer.describe(budget=self._schedule.summary())
        self.writer.close(status)

    def _detach(self) -> None:
        if self._scaler is not None:
            self._scaler.detach()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._observer.detach()
