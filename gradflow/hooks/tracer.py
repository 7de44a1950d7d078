"""The tracer: a context manager that observes the training of a model and writes a run folder."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from gradflow.errors import TracingError
from gradflow.hooks.environment import device_of, environment
from gradflow.hooks.epoch_rows import EpochRows
from gradflow.hooks.instruments import instruments_of
from gradflow.hooks.instruments.modes import acts_in_training
from gradflow.hooks.not_recorded import NotRecorded
from gradflow.hooks.options import RecordingOptions
from gradflow.hooks.processes.joining import Processes
from gradflow.hooks.recording.records import Columns
from gradflow.hooks.reduction import means
from gradflow.hooks.refusals import (
    epoch_without_steps_message,
    refuse_old_torch,
    refuse_partitioning,
    refuse_untraceable,
    run_not_written_message,
)
from gradflow.hooks.selection.modules import Selection
from gradflow.hooks.selection.schedules import Schedule, default_schedule
from gradflow.hooks.state import resume_point
from gradflow.hooks.step_cycle import StepCycle
from gradflow.hooks.store import RecordStore
from gradflow.hooks.wrappers import unwrapped
from gradflow.runs.format.limits import restoring
from gradflow.runs.writing.lenient import LenientWriter
from gradflow.runs.writing.run import NullRunWriter, RunWriter

if TYPE_CHECKING:
    from gradflow.hooks.alerts.telling import Alerts, Telling
    from gradflow.sinks.delivery import Deliveries

_BESIDE_SPIKES = 16  # on a GPU, every so many steps are written beside those around spikes


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
            the graph ("in-graph"), also in a CUDA graph that you capture. See
            `docs/reference/tracer.md` for what is then left out.
        strict: raise an error if a step or an epoch cannot be recorded, or the run not be written.
            By default the training goes on: a warning says so once, and `run.json` keeps it under
            `not_recorded`.
        resume: continue the run in the folder from this state, which `state_dict` returned: rows
            recorded after it are removed. An empty state starts the run over.
        stop_on_nonfinite: stop with an error at the end of the first recorded step that has a nan
            or infinite value; the error says where. Transfers values at every recorded step.
        parameters_every: n, to measure parameters in turns: each recorded step measures one in n of
            them, and n recorded steps each of them once. The copies take an n-th of the memory, and
            totals over parameters are missing.
        updates_every: n, to measure in turns only what needs a copy of a parameter: its update, and
            the cosine of its gradient with that of the step before. All other numbers, and so the
            totals of gradients and the clipping, are there at every recorded step.
        terms: n, to measure the terms that are given to `terms` in the first recorded step and then
            in every n-th one; or a function of the step. It costs a further backward pass a term
            in these steps.
        sinks: where else the numbers are written as the training goes on: one or several of
            `gradflow.sinks`, such as `gradflow.sinks.TensorBoard()`, Lightning loggers, or
            functions of (name, value, step). None of them can stop or hold up the training.
        alerts: how to tell, once each, that a condition such as dead units begins or ends while
            the model trains: "warn", by warnings; "log", by the logger `gradflow`; a function of a
            `gradflow.Alert`; "raise", to stop with an error; or several in a list. Sinks are told
            too. Conditions are looked at whenever numbers come off the device, which nothing waits
            for: every sixteenth recorded step and at the end of an epoch.
        around_spikes: n, to write also the n steps before and after each spike of the loss or of
            the gradient norm, with a hash of the batch and the random state, in the table
            `spikes`. Every step is then recorded, and costs what a recorded step costs; the
            schedule, which may not be a budget, says which are written in any case.
        objective: "moving", for a loss that need not fall as the model learns, since what it asks
            for moves: against an adversary, a teacher or a policy that learns too. Then the health
            check and alerts do not take a loss that stays or rises for a fault.

    The tables are defined in `gradflow.runs.format.schema`. Layer gradients are those of the loss
    as it is back-propagated. Parameter gradients are those that the optimizer receives, after
    accumulation and clipping. `docs/reference/tracer.md` says what is supported and what is not.

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
        updates_every: int = 1,
        terms: int | Schedule = 20,
        sinks: Any = (),
        alerts: "Alerts" = None,
        around_spikes: int | None = None,
        objective: Literal["fixed", "moving"] = "fixed",
    ) -> None:
        refuse_old_torch(torch.__version__)
        refuse_untraceable(model)
        refuse_partitioning(optimizer)
        self.folder = Path(folder)
        processes = Processes(model)
        given, (model, _) = model, unwrapped(model)
        self._model = model
        self._processes = processes
        self._report = NotRecorded(strict=strict)
        if schedule is None:
            is_cpu = around_spikes is None or device_of(model).type == "cpu"
            schedule = default_schedule(device_of(model).type) if is_cpu else _BESIDE_SPIKES
        options = RecordingOptions(
            schedule=schedule,
            histograms=histograms,
            observe=observe,
            groups=groups,
            scaler=scaler,
            passes=passes,
            modes=modes,
            outputs=outputs,
            compiled=compiled,
            parameters_every=parameters_every,
            updates_every=updates_every,
            stop_on_nonfinite=stop_on_nonfinite,
            terms=terms,
            around_spikes=around_spikes,
            objective=objective,
        )
        options.require_possible_with(processes.count)
        instruments = instruments_of(model, options)
        self._cycle = StepCycle(given, optimizer, options, processes, self._report, instruments)
        self._description = {
            **environment(model, *self._cycle.words),
            "acts_in_training": acts_in_training(model),
            **(description or {}),
            **options.description(),
            **self._cycle.groups(),
        }
        if alerts is not None:
            self._cycle.alerts = _telling(
                alerts, self._cycle, self._report, processes, moving=objective == "moving"
            )
        self._resume = resume
        self._epoch_rows = EpochRows()
        self._sinks = _deliveries(sinks) if sinks else None
        self._writer: RunWriter | None = None
        self._is_entered = False

    def __enter__(self) -> Self:
        refuse_untraceable(self._model)
        self._writer = self._open_writer()
        try:
            self._begin(self._writer)
        except BaseException:
            self._cycle.detach()
            self.writer.release()
            raise
        self._is_entered = True
        return self

    def _begin(self, writer: RunWriter) -> None:
        self._report.describe = writer.describe
        if self._cycle.alerts is not None:
            self._cycle.alerts.describe = writer.describe
        self._processes.report = self._report
        self._cycle.open(writer)
        if self._resume:
            with restoring(f"the tracer's state for {self.folder}"):
                self._load_state_dict(self._resume)
        self._cycle.begin()
        writer.describe(means=means.noted())
        self._start_sinks()

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._cycle.load_state_dict(state)
        self._epoch_rows.load_state_dict(state.get("waiting", {}))
        self._report.said |= state.get("not_recorded", {})

    def _start_sinks(self) -> None:
        if self._sinks is not None and self._processes.is_writer:
            earlier = self.writer.description.get("sinks") or ()
            describe = self.writer.describe
            self._sinks.start(self.folder, self._description, self.steps, describe, earlier)
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
            self._cycle.updates.end_step()
            self._cycle.report_replays_without_end()
        except BaseException:
            self._break_off("failed")
            raise
        self._cycle.detach()
        self._cycle.flush()
        self._close("complete")
        if self._cycle.alerts is not None:
            self._cycle.alerts.warn_if_stopping()

    def _break_off(self, status: str) -> None:
        """Save what was recorded; an error while saving must not hide the error that led here.

        That may be one of a device whose values can no longer be read.
        """
        self._cycle.detach()
        self._cycle.flush_after_failure()
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
        return self._cycle.store

    @property
    def recording(self) -> bool:
        """Whether the present step is recorded."""
        return self._cycle.record is not None

    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return self._cycle.step

    @property
    def epoch(self) -> int:
        """The present epoch, counted from 1."""
        return self._cycle.epoch

    @property
    def epoch_start(self) -> int:
        """The first step of the present epoch."""
        return self._cycle.epoch_start

    def step(self) -> None:
        """End the step, if no optimizer was given; call it before the gradients are zeroed.

        If the optimizer's step was captured in a CUDA graph, under `compiled="in-graph"`, nothing
        shows that the graph is replayed: call it after each replay.

        Raises `TracingError` if an optimizer was given, and ends the steps.
        """
        if self._cycle.updates.has_optimizer and not self._cycle.updates.are_replayed:
            raise TracingError(
                "the optimizer given to the tracer ends the steps: do not call step() as well"
            )
        self._require_entered()
        self._cycle.end_step_without_update()

    def use_optimizer(self, optimizer: Any) -> None:
        """Follow `optimizer` from here on, in place of those given before.

            tracer.end_epoch()
            optimizer = torch.optim.Adam(model.parameters())  # now of all layers
            tracer.use_optimizer(optimizer)

        Takes what the argument `optimizer` takes; a step under way ends here.

        Raises `TracingError` if it leads to no torch optimizer.
        """
        refuse_partitioning(optimizer)
        self._cycle.updates.use_optimizer(optimizer)
        if not self._is_entered:
            self._cycle.updates.detach()  # until the tracer is entered

    def begin_pass(self) -> None:
        """Say that a forward pass begins, in a loop that calls parts of the model one by one.

            for inputs, targets in loader:
                tracer.begin_pass()
                loss = criterion(model.head(model.body(inputs)), targets)

        A call of the model itself begins a pass without it.
        """
        self._cycle.begin_pass()

    def log(self, *, loss: Tensor | float, batch: Any = None) -> None:
        """Record the loss of the present step beside its gradients; the health check needs it.

            loss = criterion(model(inputs), targets)
            tracer.log(loss=loss)
            loss.backward()

        Call it between the forward pass and the optimizer's step; if a step has several passes, in
        each. Of a step that is not recorded nothing is kept, and nothing waits for the device.

        `batch` are the indices of the batch's samples in the data set, a sequence or tensor of
        whole numbers, which the table `spikes` then has.

        Raises `TracingError` if `loss` is not a single number.
        """
        self._cycle.add_loss(loss)
        if batch is not None:
            self._cycle.add_batch(batch)

    def terms(
        self, terms: Mapping[str, Tensor | float | tuple[Tensor | float, Tensor | float]]
    ) -> AbstractContextManager[None]:
        """Measure what each term of the loss asks of every layer and parameter.

            data, physics = criterion(u, measured), residual.square().mean()
            tracer.terms({"data": data, "physics": (0.1, physics)})
            (data + 0.1 * physics).backward()

        Give all terms as they add up to the loss, each with its weight: as a pair, or multiplied
        by it. Of a pair the health check knows that a term is meant to be small. Numbers that need
        no gradient may be among the terms. Call it before the backward pass, or around it, as
        `with tracer.terms(...):`; if a step has several passes, in each. In some of the recorded
        steps, which the argument `terms` of the tracer chooses, each term then has a backward pass
        of its own, of which the training notices nothing; the tables `terms` and `term_pairs` get
        the norms of the gradients, their shares and their cosines. Elsewhere nothing is done.

        Raises `TracingError` unless the terms are single numbers by name.
        """
        self._cycle.give_terms(terms)
        return nullcontext()

    def skip_step(self) -> None:
        """Count a step without an update and mark it as skipped; call it instead of the update."""
        self._require_entered()
        self._cycle.updates.end_step()
        self._cycle.end_step_without_update(skipped=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a tracer can continue this run, for its argument `resume`.

        It holds only tensors, numbers and names, so `torch.load(..., weights_only=True)` reads it.
        Save it together with the weights and the optimizer's state, between two steps. A step under
        way is not part of it: the tracer that continues records it from its beginning.

        Writes what was recorded up to here, so of several processes all must call this.
        """
        return {
            **self._cycle.state_dict(),
            "waiting": self._epoch_rows.state_dict(),
            "not_recorded": dict(self._report.said),
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
        self._cycle.pause(1)
        try:
            yield
        finally:
            self._cycle.pause(-1)

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
        self._epoch_rows.write(self.writer, name, with_epoch, self.epoch_start, self.steps - 1)

    def end_epoch(self, **scalars: float | int | str | None) -> None:
        """End the epoch: write `scalars` and everything recorded in it.

        If no step has ended in it, its rows are written with those of the next one that has, and
        the step under way goes on.

        Raises `TracingError` if alerts stop the training.
        """
        writer, cycle = self.writer, self._cycle
        cycle.updates.end_step()
        cycle.report_replays_without_end()
        has_steps = cycle.step > cycle.epoch_start
        if not has_steps:
            self._report("epoch without steps", epoch_without_steps_message(cycle.epoch))
        cycle.flush()
        for name, rows in cycle.instruments.end_epoch().items():
            self.write_table(name, rows)
        last_step = cycle.step - 1
        row: Columns = {"epoch": [cycle.epoch], "step": [last_step if has_steps else cycle.step]}
        row |= {name: [value] for name, value in scalars.items()}
        self._epoch_rows.write(writer, "epochs", row, cycle.epoch_start, last_step)
        if self.store.deliver is not None:
            self.store.deliver({"epochs": row})
        cycle.end_epoch()
        if cycle.alerts is not None:
            cycle.alerts.raise_if_stopping()

    def _open_writer(self) -> RunWriter:
        kind = RunWriter if self._processes.is_writer else NullRunWriter
        if self._resume is None:
            return LenientWriter(kind(self.folder, self._description), self._writing_failed)
        with restoring(f"the tracer's state for {self.folder}"):
            epoch, step = resume_point(self._resume)
        writer = kind.resume(self.folder, epoch=epoch, step=step)
        return LenientWriter(writer, self._writing_failed)

    def _require_entered(self) -> None:
        if not self._is_entered:
            raise TracingError("the tracer is not running: use it in a `with` statement")

    def _writing_failed(self, error: Exception) -> None:
        self._report("writing", run_not_written_message(self.folder, error), error)

    def _close(self, status: str) -> None:
        self._epoch_rows.write_waiting(self.writer, self.steps)
        self.writer.describe(**self._cycle.summary())
        self.writer.close(status)


def _telling(
    alerts: "Alerts", cycle: StepCycle, report: NotRecorded, processes: Processes, *, moving: bool
) -> "Telling":
    from gradflow.hooks.alerts.telling import Telling  # noqa: PLC0415 - unused, it is not loaded

    tells, turns = processes.is_writer, cycle.updates.parameters.turns_of_updates
    return Telling(alerts, cycle.layer_columns, report, tells=tells, moving=moving, turns=turns)


def _deliveries(sinks: Any) -> "Deliveries":
    from gradflow.sinks.delivery import Deliveries  # noqa: PLC0415 - unused, it is not loaded

    return Deliveries(sinks)
