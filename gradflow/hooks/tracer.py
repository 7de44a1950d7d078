"""The tracer: a context manager that observes the training of a model and writes a run folder."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from gradflow.errors import TracingError
from gradflow.hooks.compilation import HooksInGraph, UncompiledSteps, is_capturing
from gradflow.hooks.environment import device_of, environment
from gradflow.hooks.epoch_rows import EpochRows
from gradflow.hooks.layers import LayerTable
from gradflow.hooks.nonfinite import nonfinite_message
from gradflow.hooks.not_recorded import NotRecorded
from gradflow.hooks.observation.changes import ModelChanges
from gradflow.hooks.observation.in_graph import InGraphLayers
from gradflow.hooks.observation.layer_observer import LayerObserver
from gradflow.hooks.processes.joining import Processes
from gradflow.hooks.records import Columns, StepRecord
from gradflow.hooks.reduction import means
from gradflow.hooks.reduction.fused import prepare_device
from gradflow.hooks.refusals import (
    captured_step_message,
    epoch_without_steps_message,
    gradients_gone_message,
    loss_without_pass_message,
    no_layer_observed_message,
    no_pass_recorded_message,
    refuse_old_torch,
    refuse_partitioning,
    refuse_untraceable,
    run_not_written_message,
)
from gradflow.hooks.selection.groups import Groups
from gradflow.hooks.selection.modules import Selection, select_modules
from gradflow.hooks.selection.schedules import Schedule, default_schedule, require_positive_int
from gradflow.hooks.selection.steps import RecordedSteps
from gradflow.hooks.state import TracerState, resume_point
from gradflow.hooks.store import RecordStore
from gradflow.hooks.updates.losses import single_number
from gradflow.hooks.updates.recorder import UpdateRecorder
from gradflow.hooks.wrappers import unwrapped
from gradflow.runs.format.limits import restoring
from gradflow.runs.writing.lenient import LenientWriter
from gradflow.runs.writing.run import NullRunWriter, RunWriter

if TYPE_CHECKING:
    from gradflow.sinks.delivery import Deliveries


class Tracer:
    """Records gradients, activations, parameters and residual additions while `model` trains.

        with gradflow.Tracer(model, "runs/mine", optimizer=optimizer) as tracer:
            for epoch in range(epochs):
                ...                              # train; optimizer.step() ends a step
                tracer.end_epoch(train_loss=...)

    Args:
        model: any module; it is not changed, and trains bit for bit as without the tracer.
        folder: the run folder to write; it must not contain a run.
        optimizer: the optimizer whose `step` ends a step; a wrapper around one, such as that of
            accelerate, Lightning or mmengine; or several in a list or mapping. With several, a step
            ends once all of them have stepped; if only some have, when the next forward pass
            begins, or one of them steps again. Without an optimizer, call `tracer.step()` after
            the update and before the gradients are zeroed.
        schedule: n, to record every n-th step, or a function of the step, counted from 0, that says
            whether it is recorded. See `gradflow.hooks.selection.schedules`, which also has
            `Budget`, a limit on the share of the time spent. By default every step on the CPU, and
            on a GPU a budget of 2 % of the time, with at least 8 steps of each epoch.
        histograms: also count the elements of each layer's output, and of its gradient, by order of
            magnitude: True, at every recorded step; n, at every n-th of them; or a function of the
            step.
        description: entries for `run.json`, such as network, seed, configuration and classes.
        observe: the modules to observe: name patterns, classes, functions of (name, module), one
            or several; by default all modules with a role. `gradflow.layers` shows them.
        groups: named groups of parameters and layers, as selectors by name, such as
            `{"attention": "*.attn.*"}`; their totals are in the table `groups`. A module that is
            selected stands for all that is in it.
        scaler: the `torch.amp.GradScaler` that scales the loss: gradients are recorded without the
            scale, and steps that it skips are marked in the table `steps`. Needs the optimizer.
        passes: which backward passes are recorded: those that fill the `.grad` of a parameter, as
            `loss.backward()` does; or all, for loops that get their gradients from
            `torch.autograd.grad`. By default that one is taken for a part of the loss, such as a
            gradient penalty, whose contribution flows back in the pass that follows.
        modes: which forward passes are recorded: those in training mode; or all that are
            differentiated, as if a model in evaluation mode is fine-tuned, with frozen batch
            normalization, or attacked by adversarial inputs. The table `modes` says which layer ran
            in which mode.
        outputs: which tensors of a layer's output are observed: the first; or all of them (an
            LSTM's states, the levels of a pyramid), each in rows of its own, named after its place.
        compiled: how recorded steps of a compiled model run: uncompiled, with all that is recorded;
            or, from the second one on, compiled, with the statistics of layers as operations in
            the graph ("in-graph"). See `docs/tracer.md` for what is then left out.
        strict: raise an error if a step or an epoch cannot be recorded, or the run not be written.
            By default the training goes on: a warning says so once, and `run.json` keeps it under
            `not_recorded`.
        resume: continue the run in the folder from this state, which `state_dict` returned: rows
            recorded after it are removed. An empty state starts the run over.
        stop_on_nonfinite: stop with an error at the end of the first recorded step that has a nan
            or infinite value; the error says where. Transfers values at every recorded step.
        parameters_every: n, to measure parameters in turns: each recorded step measures one in n of
            them, and every n-th recorded step the same ones. The copies take an n-th of the memory,
            and totals over parameters are missing.
        sinks: where else the numbers are written as the training goes on: one or several of
            `gradflow.sinks`, such as `gradflow.sinks.TensorBoard()`, Lightning loggers, or
            functions of (name, value, step). None of them can stop or hold up the training.

    The tables are defined in `gradflow.runs.format.schema`. Layer gradients are those of the loss
    as it is back-propagated. Parameter gradients are those that the optimizer receives, after
    accumulation and clipping. `docs/tracer.md` says what is supported and what is not.

    Raises `TracingError` for a model that is scripted, or sharded or replicated in a way that this
    page refuses, and if nothing is observed; `RunError` if the folder contains a run.
    """

    def __init__(  # noqa: PLR0913 - options of a public class, all by keyword
        self,
        model: nn.Module,
        folder: str | Path,
        *,
        optimizer: Any = None,
        schedule: int | Schedule | None = None,
        histograms: bool | int | Schedule = False,
        description: Mapping[str, Any] | None = None,
        observe: Selection | None = None,
        groups: Mapping[str, Selection] | None = None,
        scaler: torch.amp.GradScaler | None = None,
        stop_on_nonfinite: bool = False,
        passes: Literal["backward", "all"] = "backward",
        modes: Literal["training", "all"] = "training",
        outputs: Literal["first", "all"] = "first",
        compiled: Literal["uncompiled", "in-graph"] = "uncompiled",
        strict: bool = False,
        resume: Mapping[str, Any] | None = None,
        parameters_every: int = 1,
        sinks: Any = (),
    ) -> None:
        refuse_old_torch(torch.__version__)
        refuse_untraceable(model)
        refuse_partitioning(optimizer)
        self.folder = Path(folder)
        self.epoch = 1
        self._processes = Processes(model)
        given, (model, _) = model, unwrapped(model)
        self._model = model
        self._steps = RecordedSteps(
            default_schedule(device_of(model).type) if schedule is None else schedule, histograms
        )
        if self._processes.count > 1:
            self._steps.agree_by(self._processes.agree)
        self._description = {
            **environment(model, self._steps.words, str(self._steps.histograms)),
            **(description or {}),
        }
        self._report = NotRecorded(strict=strict)
        self._layers = LayerTable()
        _require_one_of("passes", passes, ("backward", "all"))
        _require_one_of("modes", modes, ("training", "all"))
        _require_one_of("outputs", outputs, ("first", "all"))
        require_positive_int("parameters_every", parameters_every)
        if parameters_every > 1:
            self._description["parameters_every"] = parameters_every
        _require_one_of("compiled", compiled, ("uncompiled", "in-graph"))
        self._runs_compiled = compiled == "in-graph"
        self._in_graph: InGraphLayers | None = None
        self._hooks_in_graph: HooksInGraph | None = None
        if self._runs_compiled and (histograms is not False or self._processes.count > 1):
            raise TracingError(
                'compiled="in-graph" counts no magnitudes, and records one process alone: leave '
                "it out to record histograms, or several processes that train together"
            )
        self._observer = LayerObserver(
            model,
            select_modules(model, observe),
            self._layers,
            self._report,
            every_pass=passes == "all",
            every_mode=modes == "all",
            every_output=outputs == "all",
            parts=self._processes.place.model_count,
        )
        self._updates = UpdateRecorder(
            given,
            optimizer,
            scaler,
            record=lambda: self._observer.step_record,
            is_followed=lambda: not is_capturing() and self._steps.wants(self._step + 1),
            on_end=self._end_step,
            is_paused=lambda: self._observer.pauses > 0,
            every=parameters_every,
        )
        self._uncompiled = UncompiledSteps()
        self._selection = observe
        self._groups = Groups(groups, model) if groups else None
        if self._groups is not None:
            self._description["groups"] = self._groups.summary(self._observer.names)
        self._changes = ModelChanges(self._observer.names, self._updates.parameters.names)
        self._observer.select = self._select_again
        self._observer.on_forward = self._forward_begins
        self._observer.leaves_out = self._leaves_out
        self._observer.backward_passes.on_filling = self._updates.backward_begins
        self._stop_on_nonfinite = stop_on_nonfinite
        self._resume = resume
        self._epoch_rows = EpochRows()
        self._sinks = _deliveries(sinks) if sinks else None
        self._writer: RunWriter | None = None
        self._store: RecordStore | None = None
        self._step = 0
        self._epoch_start = 0
        self._is_entered = False
        self._has_begun = False
        self._losses_are_in_time = False

    def __enter__(self) -> Self:
        refuse_untraceable(self._model)
        self._writer = self._open_writer()
        try:
            self._begin(self._writer)
        except BaseException:
            self._detach()
            self.writer.release()
            raise
        self._is_entered = True
        return self

    def _begin(self, writer: RunWriter) -> None:
        self._report.describe = writer.describe
        self._processes.report = self._report
        self._store = RecordStore(writer, self._processes, self._layers, self._report, self._groups)
        if self._resume:
            with restoring(f"the tracer's state for {self.folder}"):
                self._load_state_dict(self._resume)
        for device in {parameter.device for parameter in self._model.parameters()}:
            prepare_device(device)
        writer.describe(means=means.noted())
        self._updates.attach()
        self._begin_step()
        self._start_sinks()

    def _start_sinks(self) -> None:
        if self._sinks is not None and self._processes.is_writer:
            earlier = self.writer.description.get("sinks") or ()
            describe = self.writer.describe
            self._sinks.start(self.folder, self._description, self._step, describe, earlier)
            self.store.deliver = self._sinks.put

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._complete()
            else:
                self._break_off(
                    "interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed"
                )
        finally:
            self._is_entered = False
            try:
                if self._sinks is not None:
                    self._sinks.close()
            finally:
                self.writer.release()

    def _complete(self) -> None:
        try:
            self._updates.end_step()
        except BaseException:
            self._break_off("failed")
            raise
        self._detach()
        self.store.flush(self._step)
        self._close("complete")

    def _break_off(self, status: str) -> None:
        """Save what was recorded; an error while saving must not hide the error that led here.

        That may be one of a device whose values can no longer be read.
        """
        self._detach()
        with suppress(Exception):
            if self._processes.count > 1:
                # The other processes may have ended: records that need theirs are lost.
                self.store.drop_pending()
            self.store.flush(self._step)
        with suppress(Exception):
            self._close(status)

    @property
    def writer(self) -> RunWriter:
        """The writer of the run folder, while the tracer is entered."""
        if self._writer is None:
            raise TracingError("the tracer is not running: use it in a `with` statement")
        return self._writer

    @property
    def store(self) -> RecordStore:
        """The buffer of recorded data that is not written yet, while the tracer is entered."""
        if self._store is None:
            raise TracingError("the tracer is not running: use it in a `with` statement")
        return self._store

    @property
    def recording(self) -> bool:
        """Whether the present step is recorded."""
        return self._observer.step_record is not None

    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return self._step

    @property
    def epoch_start(self) -> int:
        """The first step of the present epoch."""
        return self._epoch_start

    def step(self) -> None:
        """End the step, if no optimizer was given; call it before the gradients are zeroed."""
        if self._updates.has_optimizer:
            raise TracingError(
                "the optimizer given to the tracer ends the steps: do not call step() as well"
            )
        self._require_entered()
        self._updates.begin_without_update()
        self._end_step()

    def use_optimizer(self, optimizer: Any) -> None:
        """Follow `optimizer` from here on, in place of those given before.

            tracer.end_epoch()
            optimizer = torch.optim.Adam(model.parameters())  # now of all layers
            tracer.use_optimizer(optimizer)

        Takes what the argument `optimizer` takes; a step under way ends here.

        Raises `TracingError` if it leads to no torch optimizer.
        """
        refuse_partitioning(optimizer)
        self._updates.use_optimizer(optimizer)
        if not self._is_entered:
            self._updates.detach()  # until the tracer is entered

    def begin_pass(self) -> None:
        """Say that a forward pass begins, in a loop that calls parts of the model one by one.

            for inputs, targets in loader:
                tracer.begin_pass()
                loss = criterion(model.head(model.body(inputs)), targets)

        A call of the model itself begins a pass without it.
        """
        self._updates.end_step()
        self._observer.begin_pass()

    def log(self, *, loss: Tensor | float) -> None:
        """Record the loss of the present step beside its gradients; the health check needs it.

            loss = criterion(model(inputs), targets)
            tracer.log(loss=loss)
            loss.backward()

        Call it between the forward pass and the optimizer's step; if a step has several passes, in
        each. Of a step that is not recorded nothing is kept, and nothing waits for the device.

        Raises `TracingError` if `loss` is not a single number.
        """
        loss = single_number(loss)
        record = self._observer.step_record
        if record is None or self._observer.pauses:
            return
        if not self._has_begun:
            self._report("loss", loss_without_pass_message(record.step))
            return
        record.losses.append(loss)

    def skip_step(self) -> None:
        """Count a step without an update and mark it as skipped; call it instead of the update."""
        self._require_entered()
        self._updates.end_step()
        self._updates.begin_without_update()
        if self._observer.step_record is not None:
            self._observer.step_record.skipped = True
        self._end_step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a tracer can continue this run, for its argument `resume`.

        It holds only tensors, numbers and names, so `torch.load(..., weights_only=True)` reads it.
        Save it together with the weights and the optimizer's state, between two steps. A step under
        way is not part of it: the tracer that continues records it from its beginning.

        Writes what was recorded up to here, so of several processes all must call this.
        """
        self._updates.end_step()
        self.store.flush(self._step)
        return {
            "epoch": self.epoch,
            "step": self._step,
            "epoch_start": self._epoch_start,
            "nonfinite": self.store.nonfinite,
            "memory": self._state().state_dict(),
            "waiting": self._epoch_rows.state_dict(),
            "not_recorded": dict(self._report.said),
            "model_changes": [dict(entry) for entry in self._changes.entries],
            "backward_passes": self._observer.backward_passes.summary(),
        }

    def first_nonfinite(self) -> dict[str, Any] | None:
        """Return the first nan or infinite value recorded in a step that has ended, or None.

        Keys: epoch, step, layer, direction (forward or backward), and count, the number of such
        values. Waits for the device.
        """
        self.store.transfer()
        return self.store.nonfinite

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not record forward passes that start in this context, nor their backward passes.

        For passes that are not part of this model's training step, such as the discriminator's pass
        for the generator's loss, or a penalty.
        """
        self._pause(1)
        try:
            yield
        finally:
            self._pause(-1)

    def live(
        self,
        quantity: str = "gradient_norm",
        *,
        every: Literal["step", "epoch"] = "step",
        curve: str = "",
    ) -> None:
        """Show the training below the present cell of a notebook, and follow it.

            with gradflow.Tracer(model, "runs/mine", optimizer=optimizer) as tracer:
                tracer.live()
                ...

        A heat map of `quantity` by layer and time, a curve, and the name of the worst layer; a line
        of text outside notebooks or without anywidget. It may be called before the training or
        within it. The arguments are those of `gradflow.sinks.Notebook`, which is a sink like
        others: what fails there is reported once, and the training goes on.

        Raises `ConfigurationError` if there is no such quantity.
        """
        from gradflow.sinks.notebook.sink import Notebook  # noqa: PLC0415 - unused, it is not loaded

        view = Notebook(quantity, every=every, curve=curve)
        if not self._processes.is_writer:
            return
        if self._sinks is None:
            self._sinks = _deliveries(())
        self._sinks.add(view)
        if self._is_entered:
            self._start_sinks()

    def write_table(self, name: str, columns: Mapping[str, Any]) -> None:
        """Write rows of table `name` for the present epoch; `columns` has one value per row.

        The column `epoch` is added. Call it before `end_epoch`, once per table and epoch.
        """
        rows = len(next(iter(columns.values())))
        with_epoch = {"epoch": [self.epoch] * rows, **columns}
        self._epoch_rows.write(self.writer, name, with_epoch, self._epoch_start, self._step - 1)

    def end_epoch(self, **scalars: float | int | str | None) -> None:
        """End the epoch: write `scalars` and everything recorded in it.

        If no step has ended in it, its rows are written with those of the next one that has, and
        the step under way goes on.
        """
        writer = self.writer
        self._updates.end_step()
        has_steps = self._step > self._epoch_start
        if not has_steps:
            self._report("epoch without steps", epoch_without_steps_message(self.epoch))
        self.store.flush(self._step)
        last_step = self._step - 1
        row: Columns = {"epoch": [self.epoch], "step": [last_step if has_steps else self._step]}
        row |= {name: [value] for name, value in scalars.items()}
        self._epoch_rows.write(writer, "epochs", row, self._epoch_start, last_step)
        if self.store.deliver is not None:
            self.store.deliver({"epochs": row})
        self.epoch += 1
        self._epoch_start = self._step
        self._steps.begin_epoch(self._step)
        record = self._observer.step_record
        if record is None or not (record.gradients or record.losses or self._in_graph):
            self._begin_step()
        else:
            # The step under way has begun: it goes on, and will belong to the epoch it ends in.
            # Forward passes alone do not tell, which may be those of an evaluation.
            record.epoch = self.epoch
            self._steps.begin()

    def _open_writer(self) -> RunWriter:
        kind = RunWriter if self._processes.is_writer else NullRunWriter
        if self._resume is None:
            return LenientWriter(kind(self.folder, self._description), self._writing_failed)
        with restoring(f"the tracer's state for {self.folder}"):
            epoch, step = resume_point(self._resume)
        writer = kind.resume(self.folder, epoch=epoch, step=step)
        return LenientWriter(writer, self._writing_failed)

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self._step = state["epoch"], state["step"]
        self._epoch_start = state.get("epoch_start", self._step)
        self._state().load_state_dict(state["memory"])
        self._epoch_rows.load_state_dict(state.get("waiting", {}))
        self.store.nonfinite = state["nonfinite"]
        self.store.start_at(self._step)
        self._report.said |= state.get("not_recorded", {})
        self._changes.entries[:0] = state.get("model_changes", [])
        self._observer.backward_passes.load_state_dict(state.get("backward_passes", {}))

    def _state(self) -> TracerState:
        junctions = self._observer.junctions
        schedule = self._steps.schedule
        return TracerState(self._layers, junctions, self._updates.parameters, schedule)

    def _begin_step(self) -> None:
        record: StepRecord | None = None
        if self._steps.wants(self._step):
            histograms, share = self._steps.histograms(self._step), self._processes.loss_share
            record = StepRecord(self.epoch, self._step, histograms, share)
        if self._in_graph is not None:
            self._in_graph.begin_step()
            self._observer.step_record = record
        else:
            self._observer.begin_step(record)
        if record is not None and self._in_graph is None:
            self._uncompiled.begin()
        else:
            self._uncompiled.end()
        # Nothing shows it in the graph, so the step before the graph tells when losses are given.
        self._has_begun = self._in_graph is not None and self._losses_are_in_time
        self._updates.begin_step()
        self._steps.begin()

    def _select_again(self) -> list[tuple[str, nn.Module, str]]:
        """The modules to observe after the model has changed."""
        try:
            return select_modules(self._model, self._selection)
        except TracingError as error:
            self._report("selection", f"in step {self._step} {error}")
            return []

    def _forward_begins(self, has_changed: bool) -> None:
        self._has_begun = True
        if has_changed:
            self._updates.model_has_changed()
            names = self._observer.names, self._updates.parameters.names
            if self._changes.note(self._step, *names):
                self.writer.describe(model_changes=self._changes.entries)
            if self._groups is not None:
                self._groups.look_up()
                self.writer.describe(groups=self._groups.summary(self._observer.names))
        self._updates.forward_begins()

    def _leaves_out(self) -> bool:
        """Whether the step under way is not recorded, since it is captured in a CUDA graph."""
        if not is_capturing():
            return False
        self._report("CUDA graph", captured_step_message(self._step))
        return True

    def _end_step(self) -> None:
        record = self._observer.step_record
        gradients_were_missed = self._updates.parameters.gradients_were_missed
        self._updates.finish(record)
        self._observer.end_step()
        if record is not None:
            if self._in_graph is not None:
                self._in_graph.end_step(record)
            record.closed = True
            self.store.add(record)
            self._steps.histograms.count_recorded_step()
        self._step += 1
        writing_began = time.monotonic()
        if record is not None:
            self._report_what_is_missing(record, gradients_were_missed)
        self.store.transfer_and_flush_if_due(self._step, at_once=self._stop_on_nonfinite)
        self._steps.end(recorded=record is not None, writing_began=writing_began)
        if self._runs_compiled and self._in_graph is None and record and record.activations:
            self._go_on_in_graph(record)
        self._begin_step()
        if self._stop_on_nonfinite and self.store.nonfinite is not None:
            self.store.flush(self._step)
            raise TracingError(nonfinite_message(self.store.nonfinite))

    def _go_on_in_graph(self, record: StepRecord) -> None:
        """Take the statistics of layers within the graph from here on, as `record` found them."""
        self._observer.begin_step(None)
        self._losses_are_in_time = bool(record.losses)
        self._hooks_in_graph = HooksInGraph()
        modules, axes = self._observer.modules, self._observer.axes
        seen = record.activations, record.gradients, axes
        self._in_graph = InGraphLayers(self._model, modules, *seen, self._report)
        self._pause(0)

    def _report_what_is_missing(self, record: StepRecord, gradients_were_missed: bool) -> None:
        if gradients_were_missed:
            self._report("gradients", gradients_gone_message(record.step))
        if self._observer.backward_passes.were_all_left_out:
            self._report("no pass", no_pass_recorded_message())
        if not self._layers:
            reasons = self._observer.unobserved.sentence()
            self._report("no layer", no_layer_observed_message(record.step, reasons))

    def _pause(self, change: int) -> None:
        self._observer.pauses += change
        if self._in_graph is not None:
            self._in_graph.record_passes(wanted=not self._observer.pauses)

    def _require_entered(self) -> None:
        if not self._is_entered:
            raise TracingError("the tracer is not running: use it in a `with` statement")

    def _writing_failed(self, error: Exception) -> None:
        self._report("writing", run_not_written_message(self.folder, error), error)

    def _close(self, status: str) -> None:
        self._epoch_rows.write_waiting(self.writer, self._step)
        self.writer.describe(residual_additions=self._observer.junctions.summary())
        if self._step:
            self.writer.describe(not_observed=self._observer.unobserved.by_reason())
        passes = self._observer.backward_passes.summary()
        self.writer.describe(backward_passes=passes, means=means.noted(), **self._steps.summary())
        self.writer.close(status)

    def _detach(self) -> None:
        self._updates.detach()
        self._observer.detach()
        if self._in_graph is not None:
            self._in_graph.detach()
            self._in_graph = None
            self._runs_compiled = False
        if self._hooks_in_graph is not None:
            self._hooks_in_graph.end()
            self._hooks_in_graph = None
        self._uncompiled.end()


def _deliveries(sinks: Any) -> "Deliveries":
    from gradflow.sinks.delivery import Deliveries  # noqa: PLC0415 - unused, it is not loaded

    return Deliveries(sinks)


def _require_one_of(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        words = " or ".join(f'"{one}"' for one in allowed)
        raise TracingError(f"{option}= is {words}, not {value!r}")
