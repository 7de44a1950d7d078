"""The cycle of steps: each begins, is observed, ends and is handed over, recorded or not."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gradflow.errors import TracingError
from gradflow.hooks.compilation import HooksInGraph, UncompiledSteps, is_capturing
from gradflow.hooks.instruments.batches import INDICES, kept_indices
from gradflow.hooks.instruments.instrument import Instrument, Instruments
from gradflow.hooks.instruments.terms.loss_terms import LossTerms, Terms
from gradflow.hooks.layers import LayerTable
from gradflow.hooks.not_recorded import NotRecorded
from gradflow.hooks.observation.changes import ModelChanges
from gradflow.hooks.observation.in_graph import InGraphLayers
from gradflow.hooks.observation.layer_observer import LayerObserver
from gradflow.hooks.options import RecordingOptions
from gradflow.hooks.processes.joining import Processes
from gradflow.hooks.recording.losses import single_number
from gradflow.hooks.recording.nonfinite import nonfinite_message
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.recording.spikes import SpikeRing
from gradflow.hooks.reduction import means
from gradflow.hooks.reduction.fused import prepare_device
from gradflow.hooks.reduction.statistics import sums
from gradflow.hooks.refusals import (
    captured_loss_message,
    captured_scaler_message,
    captured_step_message,
    gradients_gone_message,
    loss_without_pass_message,
    no_layer_observed_message,
    no_pass_recorded_message,
    replays_without_end_message,
    unseen_pass_message,
)
from gradflow.hooks.selection.groups import Groups
from gradflow.hooks.selection.modules import select_modules
from gradflow.hooks.selection.steps import RecordedSteps
from gradflow.hooks.state import TracerState
from gradflow.hooks.store import RecordStore
from gradflow.hooks.updates.recorder import UpdateRecorder
from gradflow.hooks.updates.turns import Every
from gradflow.hooks.wrappers import unwrapped
from gradflow.runs.writing.run import RunWriter

if TYPE_CHECKING:
    from gradflow.hooks.alerts.telling import Telling


class StepCycle:
    """Observes a model step by step, from `begin` to `detach`.

    Args:
        given: the model as the user gave it, with what wraps it.
        optimizer: what ends the steps; see `Tracer`.
        options: what is recorded, and when.
        processes: those that train the model.
        report: says once that something is not recorded.
        instruments: what is measured beside layers and parameters.

    Fields:
        epoch, step: those under way.
        epoch_start: the first step of the epoch under way.
        store: takes the records; set by `open`.
        updates: what measures the parameters, and says when a step ends.
        terms: measures the terms of the loss.
        instruments: the instruments together.
        alerts: tells of conditions while the model trains; or None.

    Raises `TracingError` if nothing is observed.
    """

    def __init__(
        self,
        given: nn.Module,
        optimizer: Any,
        options: RecordingOptions,
        processes: Processes,
        report: NotRecorded,
        instruments: tuple[Instrument, ...] = (),
    ) -> None:
        self.epoch, self.step, self.epoch_start = 1, 0, 0
        self._model, _ = unwrapped(given)
        self._options = options
        self._processes = processes
        self._report = report
        self._layers = LayerTable()
        around = options.around_spikes
        self._steps = RecordedSteps(
            options.schedule, options.histograms, every_step=around is not None
        )
        self._ring = None if around is None else SpikeRing(around)
        if processes.count > 1:
            self._steps.agree_by(processes.agree)
        self._in_graph: InGraphLayers | None = None
        self._hooks_in_graph: HooksInGraph | None = None
        self._goes_on_in_graph = options.runs_compiled
        self._observer = LayerObserver(
            self._model,
            select_modules(self._model, options.observe),
            self._layers,
            report,
            every_pass=options.passes == "all",
            every_mode=options.modes == "all",
            every_output=options.outputs == "all",
            parts=processes.place.model_count,
        )
        self.updates = UpdateRecorder(
            given,
            optimizer,
            options.scaler,
            record=lambda: self._observer.step_record,
            is_followed=lambda: not is_capturing() and self._steps.wants(self.step + 1),
            on_end=self.end_step,
            is_paused=lambda: self._observer.pauses > 0,
            every=Every(options.parameters_every, options.updates_every),
        )
        self.terms = LossTerms(self._model, options, report, processes.count)
        self.terms.keep = self._observer.keep_outputs
        self.terms.aside = self._aside
        self.terms.scale = self.updates.loss_scale
        self.instruments = Instruments((*instruments, self.terms), processes.count)
        self._uncompiled = UncompiledSteps()
        self._groups = Groups(options.groups, self._model) if options.groups else None
        self._changes = ModelChanges(self._observer.names, self.updates.parameters.names)
        self._observer.select = self._select_again
        self._observer.on_forward = self._forward_begins
        self._observer.leaves_out = self._leaves_out
        self._observer.backward_passes.on_filling = self.updates.backward_begins
        self.updates.is_capturing = is_capturing
        self.updates.on_capture = self._update_is_captured
        self.updates.on_backward = self.instruments.backward_begins
        belongs = self._observer.backward_passes.belongs_to_step
        self._observer.on_layer = self.instruments.observe(belongs, self._observer.ask_again)
        self.alerts: Telling | None = None
        self._store: RecordStore | None = None
        self._writer: RunWriter | None = None
        self._has_begun = False
        self._losses_are_in_time = False
        self._captured_in: int | None = None

    @property
    def store(self) -> RecordStore:
        """The buffer of recorded data that is not written yet; the tracer must be entered."""
        if self._store is None:
            raise TracingError("the tracer is not running: use it in a `with` statement")
        return self._store

    @property
    def record(self) -> StepRecord | None:
        """The record of the step under way; None if it is not recorded."""
        return self._observer.step_record

    @property
    def words(self) -> tuple[str, str]:
        """Which steps are recorded, and which of them have histograms, for `run.json`."""
        return self._steps.words, str(self._steps.histograms)

    def layer_columns(self) -> dict[str, list[Any]]:
        """Return the columns of the table `layers`, of the layers observed so far."""
        return self._layers.columns()

    def groups(self) -> dict[str, Any]:
        """Return the entry of `run.json` on the groups of parameters, if there are any."""
        if self._groups is None:
            return {}
        return {"groups": self._groups.summary(self._observer.names)}

    def open(self, writer: RunWriter) -> None:
        """Let rows go to `writer` from here on."""
        self._writer = writer
        rows = writer, self._processes, self._layers, self._report, self._groups, self.instruments
        self._store = RecordStore(*rows)
        self._store.alerts = self.alerts
        self._store.ring = self._ring

    def begin(self) -> None:
        """Begin with the step that is next; call `open` before, and `load_state_dict` to go on."""
        for device in {parameter.device for parameter in self._model.parameters()}:
            prepare_device(device)
            sums.prepare(device)
        self.instruments.report_left_out(self._report)
        self.updates.attach()
        self._begin_step()

    def begin_pass(self) -> None:
        """A forward pass begins of which the parts of the model are called one by one."""
        if not is_capturing():
            self.updates.pass_begins()
        if self._in_graph is None:
            self._observer.begin_pass()

    def end_step_without_update(self, *, skipped: bool = False) -> None:
        """End a step that no optimizer ends; `skipped`, if there was no update.

        While a CUDA graph is captured, nothing is computed, and no step ends.
        """
        if is_capturing():
            return
        self.updates.begin_without_update()
        if skipped and self._observer.step_record is not None:
            self._observer.step_record.skipped = True
        self.end_step()

    def add_batch(self, indices: Any) -> None:
        """Note the indices of the samples of a batch of the step under way, if that is used."""
        record = self._observer.step_record
        if record is not None and self._ring is not None and not self._observer.pauses:
            record.further.setdefault(INDICES, []).append(kept_indices(indices))

    def add_loss(self, loss: Tensor | float) -> None:
        """Add a loss of the step under way, if it is recorded.

        Raises `TracingError` if it is not a single number.
        """
        if is_capturing():
            self._report("captured loss", captured_loss_message(self.step))
            return
        loss = single_number(loss)
        record = self._observer.step_record
        if record is None or self._observer.pauses:
            return
        if not self._has_begun:
            in_training = self._model.training
            self._report("loss", loss_without_pass_message(record.step, training=in_training))
            return
        record.losses.append(loss)

    def pause(self, change: int) -> None:
        """Add `change` to the number of reasons to record no passes."""
        self._observer.pauses += change
        if self._in_graph is not None:
            self._in_graph.record_passes(wanted=not self._observer.pauses)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Notice none of the passes in this context, which are the tracer's own."""
        passes = self._observer.backward_passes
        self.pause(1)
        passes.unseen = True
        try:
            yield
        finally:
            passes.unseen = False
            self.pause(-1)

    def give_terms(self, terms: Terms) -> None:
        """Take the terms of the loss of the step under way, unless it is paused.

        Raises `TracingError` if they are not single numbers by name.
        """
        if not self._observer.pauses:
            self.terms.give(terms)

    def end_epoch(self) -> None:
        """Go on to the next epoch; a step under way goes on if it has begun."""
        self.epoch += 1
        self.epoch_start = self.step
        self._steps.begin_epoch(self.step)
        record = self._observer.step_record
        if record is None or not (record.gradients or record.losses or self._in_graph):
            self._begin_step()
        else:
            # The step under way has begun: it goes on, and will belong to the epoch it ends in.
            # Forward passes alone do not tell, which may be those of an evaluation.
            record.epoch = self.epoch
            self._steps.begin()

    def end_step(self) -> None:
        """End the step under way and begin the next.

        Raises `TracingError` if it is to stop at values that are not finite, and found some, or at
        alerts.
        """
        record = self._observer.step_record
        gradients_were_missed = self.updates.parameters.gradients_were_missed
        self.updates.finish(record)
        self._observer.end_step()
        if record is not None:
            self.instruments.end_step(record)
            if self._in_graph is not None:
                self._end_step_in_graph(self._in_graph, record)
            record.closed = True
            self.store.add(record)
            if record.wanted:
                self._steps.histograms.count_recorded_step()
        self.step += 1
        writing_began = time.monotonic()
        if record is not None:
            self._report_what_is_missing(record, gradients_were_missed)
        stops = self._options.stop_on_nonfinite
        self.store.transfer_and_flush_if_due(self.step, at_once=stops)
        self._steps.end(recorded=record is not None, writing_began=writing_began)
        if self._goes_on_in_graph and self._in_graph is None and record and record.activations:
            self._go_on_in_graph(record)
        self._begin_step()
        if stops and self.store.nonfinite is not None:
            self.store.flush(self.step)
            raise TracingError(nonfinite_message(self.store.nonfinite))
        if self.alerts is not None and self.alerts.stopping is not None:
            self.store.flush(self.step)
            self.alerts.raise_if_stopping()

    def report_replays_without_end(self) -> None:
        """Say so if a captured update was replayed, and nothing has ended a step since."""
        if self._captured_in == self.step and self._in_graph and self._in_graph.has_run():
            self._report("CUDA graph", replays_without_end_message(self.step))

    def flush(self) -> None:
        """Write everything recorded in steps that have ended."""
        self.store.flush(self.step)

    def flush_after_failure(self) -> None:
        """Write what can still be written; an error must not hide the one that led here."""
        with suppress(Exception):
            if self._processes.count > 1:
                # The other processes may have ended: records that need theirs are lost.
                self.store.drop_pending()
            self.flush()

    def state_dict(self) -> dict[str, Any]:
        """Return what a tracer that continues needs; writes what was recorded up to here."""
        self.updates.end_step()
        self.flush()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "epoch_start": self.epoch_start,
            "nonfinite": self.store.nonfinite,
            "memory": self._state().state_dict(),
            "instruments": self.instruments.state_dict(),
            "spikes": {} if self._ring is None else self._ring.state_dict(),
            "alerts": {} if self.alerts is None else self.alerts.state_dict(),
            "model_changes": [dict(entry) for entry in self._changes.entries],
            "backward_passes": self._observer.backward_passes.summary(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; raises if it is not the state of a tracer."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.epoch_start = state.get("epoch_start", self.step)
        self._state().load_state_dict(state["memory"])
        self.instruments.load_state_dict(state.get("instruments", {}))
        if self._ring is not None:
            self._ring.load_state_dict(state.get("spikes", {}))
        if self.alerts is not None:
            self.alerts.load_state_dict(state.get("alerts", {}))
        self.store.nonfinite = state["nonfinite"]
        self.store.start_at(self.step)
        self._changes.entries[:0] = state.get("model_changes", [])
        self._observer.backward_passes.load_state_dict(state.get("backward_passes", {}))

    def summary(self) -> dict[str, Any]:
        """Return the entries of `run.json` that are known once the training has ended."""
        entries: dict[str, Any] = {"residual_additions": self._observer.junctions.summary()}
        if self.step:
            entries["not_observed"] = self._observer.unobserved.by_reason()
        entries["backward_passes"] = self._observer.backward_passes.summary()
        return {
            **entries,
            "means": means.noted(),
            **self.instruments.summary(),
            **self._steps.summary(),
        }

    def detach(self) -> None:
        """Take off all hooks; the step under way is dropped."""
        self.updates.detach()
        self._observer.detach()
        self.instruments.detach()
        if self._in_graph is not None:
            self._in_graph.detach()
            self._in_graph = None
            self._goes_on_in_graph = False
        if self._hooks_in_graph is not None:
            self._hooks_in_graph.end()
            self._hooks_in_graph = None
        self._uncompiled.end()

    def _state(self) -> TracerState:
        junctions = self._observer.junctions
        schedule = self._steps.schedule
        return TracerState(self._layers, junctions, self.updates.parameters, schedule)

    def _begin_step(self) -> None:
        record: StepRecord | None = None
        if self._steps.wants(self.step):
            wanted, share = self._steps.chosen(self.step), self._processes.loss_share
            histograms = wanted and self._steps.histograms(self.step)
            record = StepRecord(self.epoch, self.step, histograms, share, wanted=wanted)
        if self._in_graph is not None:
            if not is_capturing():
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
        self.updates.begin_step()
        self.instruments.begin_step(record)
        self._steps.begin()

    def _select_again(self) -> list[tuple[str, nn.Module, str]]:
        """The modules to observe after the model has changed."""
        try:
            return select_modules(self._model, self._options.observe)
        except TracingError as error:
            self._report("selection", f"in step {self.step} {error}")
            return []

    def _forward_begins(self, has_changed: bool) -> None:
        self._has_begun = True
        if has_changed:
            self._model_has_changed()
        self.updates.forward_begins()
        if self._observer.record is not None:
            self.instruments.forward_begins(self._observer.record)

    def _model_has_changed(self) -> None:
        self.updates.model_has_changed()
        self.instruments.model_has_changed()
        names = self._observer.names, self.updates.parameters.names
        if self._writer is None:
            return
        if self._changes.note(self.step, *names):
            self._writer.describe(model_changes=self._changes.entries)
        if self._groups is not None:
            self._groups.look_up()
            self._writer.describe(**self.groups())

    def _leaves_out(self) -> bool:
        """Whether the step under way is not recorded, since it is captured in a CUDA graph."""
        if not is_capturing():
            return False
        in_graph = self._options.runs_compiled
        self._report("CUDA graph", captured_step_message(self.step, in_graph=in_graph))
        return True

    def _update_is_captured(self) -> bool:
        """An optimizer's step is captured; return whether `tracer.step()` follows its replays."""
        if self._in_graph is None:
            in_graph, is_recorded = (
                self._options.runs_compiled,
                self._observer.step_record is not None,
            )
            if (in_graph or is_recorded) and self._leaves_out():
                self._observer.leave_step()
            if not in_graph:
                return False
        self._captured_in = self.step
        if self._options.scaler is not None:
            self._report("captured scaler", captured_scaler_message())
        return True

    def _go_on_in_graph(self, record: StepRecord) -> None:
        """Take the statistics of layers within the graph from here on, as `record` found them."""
        self._observer.begin_step(None)
        self._observer.let_go_of_nodes()
        self._losses_are_in_time = bool(record.losses)
        self._hooks_in_graph = HooksInGraph()
        modules, axes = self._observer.modules, self._observer.axes
        seen = record.activations, record.gradients, axes
        self._in_graph = InGraphLayers(self._model, modules, *seen, self._report)
        self.pause(0)

    def _end_step_in_graph(self, in_graph: InGraphLayers, record: StepRecord) -> None:
        if self.updates.ends_late:
            self._report("turns in graph", unseen_pass_message(record.step))
        else:
            in_graph.end_step(record)

    def _report_what_is_missing(self, record: StepRecord, gradients_were_missed: bool) -> None:
        if gradients_were_missed:
            self._report("gradients", gradients_gone_message(record.step))
        if self._observer.backward_passes.were_all_left_out:
            self._report("no pass", no_pass_recorded_message())
        # Why a captured graph has none has been said.
        if not self._layers and "CUDA graph" not in self._report.said:
            reasons = self._observer.unobserved.sentence()
            self._report("no layer", no_layer_observed_message(record.step, reasons))
