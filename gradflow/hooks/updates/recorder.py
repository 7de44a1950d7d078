"""Records what each step does to the parameters, from the first optimizer's step to the last.

With several optimizers the gradients of each are measured when that one begins: what lies between
two of them, such as clipping, belongs to the second.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradflow.errors import TracingError
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.updates.measures import grouped, many
from gradflow.hooks.updates.optimizers import Optimizers
from gradflow.hooks.updates.parameters import ParameterRecorder
from gradflow.hooks.updates.scaling import ScalerObserver, grad_scale_and_found_inf
from gradflow.hooks.updates.turns import ALWAYS, Every
from gradflow.hooks.wrappers import unwrapped


class UpdateRecorder:
    """Measures parameters around the steps of their optimizers, and says when a step has ended.

    Args:
        model: whose parameters are measured; with what wraps it.
        optimizer: one or several, or wrappers; None if the user ends the steps.
        scaler: the gradient scaler, if there is one.
        record: returns the record of the step under way; None if it is not recorded.
        is_followed: returns whether the next step is recorded.
        on_end: called when the optimizers have ended a step.
        is_paused: returns whether passes that run now are not part of the step.
        every: after how many recorded steps a parameter is measured again, and its update is.

    Fields:
        on_backward: called as each recorded backward pass fills its first gradient.
        is_capturing, on_capture: asked about CUDA graphs; see `Optimizers`.

    Raises `TracingError` if a scaler is given without an optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        scaler: torch.amp.GradScaler | None,
        record: Callable[[], StepRecord | None],
        is_followed: Callable[[], bool],
        on_end: Callable[[], None],
        is_paused: Callable[[], bool] = lambda: False,
        every: Every = ALWAYS,
    ) -> None:
        self.parameters = ParameterRecorder(
            unwrapped(model)[0],
            lambda: record() is not None and not is_paused(),
            every,
        )
        self._model = model
        self._record = record
        self._is_followed = is_followed
        self._on_end = on_end
        self._is_paused = is_paused
        self.is_capturing: Callable[[], bool] = lambda: False
        self.on_capture: Callable[[], bool] = lambda: False
        self._is_update_hidden = False
        self.parameters.backward.on_pass = self.backward_begins
        self.on_backward: Callable[[StepRecord], None] = lambda record: None
        self._passes: set[int] = set()
        self._without_update = False
        self._is_recorded = False
        self._optimizers = None if optimizer is None else self._follow(optimizer)
        self._scaler: ScalerObserver | None = None
        if scaler is not None:
            if self._optimizers is None:
                raise TracingError("a scaler skips steps of an optimizer: give the tracer both")
            self._scaler = ScalerObserver(scaler, self._is_ours, self._step_is_skipped)

    @property
    def has_optimizer(self) -> bool:
        """Whether an optimizer ends the steps."""
        return self._optimizers is not None

    @property
    def are_replayed(self) -> bool:
        """Whether the optimizers' steps are in a CUDA graph, whose replays nothing shows."""
        return self._optimizers is not None and self._optimizers.captured == self._optimizers.count

    @property
    def ends_late(self) -> bool:
        """Whether passes that belong to the next step have run before this one ends."""
        return self._optimizers is not None and self._optimizers.ends_late

    def loss_scale(self) -> Tensor | float | None:
        """Return the factor of the loss in the next backward pass; None without a scaler."""
        return None if self._scaler is None else self._scaler.coming_scale()

    def attach(self) -> None:
        """Put the hooks on the optimizers and the scaler; waits for the devices of parameters."""
        for device in {parameter.device for parameter in self.parameters.names.values()}:
            many.prepare(device)
        if self._scaler is not None:
            self._scaler.attach()
        if self._optimizers is not None:
            self._optimizers.attach()

    def detach(self) -> None:
        """Take off the hooks put on by `attach`."""
        if self._scaler is not None:
            self._scaler.detach()
        if self._optimizers is not None:
            self._optimizers.detach()
        self.parameters.backward.detach()

    def use_optimizer(self, optimizer: Any) -> None:
        """Follow `optimizer`, one or several, in place of those before; ends a step under way."""
        found = self._follow(optimizer)
        self.end_step()
        if self._optimizers is not None:
            self._optimizers.detach()
        self._optimizers = found
        found.attach()

    def pass_begins(self) -> None:
        """A forward pass begins: end the step under way if some of the optimizers have stepped."""
        if self._optimizers is not None:
            self._optimizers.pass_begins()

    def end_step(self) -> None:
        """End the step under way if some of the optimizers have stepped in it."""
        if self._optimizers is not None:
            self._optimizers.end_step()

    def begin_step(self) -> None:
        """Measure the weights, if no optimizer will show when they are updated.

        In a step that is not recorded, the parameters have no hooks.
        """
        self._is_recorded = self._record() is not None
        if not self._is_recorded:
            self.parameters.backward.detach()
        # Whether nothing will show when the weights are about to change.
        self._is_update_hidden = self._optimizers is None or self._optimizers.captured > 0
        if self._is_update_hidden:
            self._begin(keep_weights=True)

    def forward_begins(self) -> None:
        """Prepare for the backward pass of a forward pass that begins in a recorded step."""
        self.parameters.follow_arrivals()

    def model_has_changed(self) -> None:
        """Take up the parameters that were added, at the first forward pass of a recorded step."""
        self.parameters.look_up()
        if self._optimizers is None:
            self.parameters.measure_weights(keep=True)

    def backward_begins(self) -> Callable[[], None] | None:
        """Return what measures the gradients once the backward pass now running has ended.

        None if the pass is not recorded, or this has been called within it before.
        """
        record, task = self._record(), torch._C._current_graph_task_id()
        if record is None or self._is_paused() or task in self._passes:
            return None
        self._passes.add(task)
        self.on_backward(record)
        return partial(self._backward_ended, record)

    def begin_without_update(self) -> None:
        """Measure all parameters as they are, if nothing shows when the update is made."""
        if not self._is_update_hidden:
            self._begin(keep_weights=False)
        self._measure_gradients(None)

    def finish(self, record: StepRecord | None) -> None:
        """Measure what is left, and put all that was measured into `record`."""
        if self._optimizers is not None and self._optimizers.count > 1:
            self._measure_gradients(None)  # those of optimizers that have not stepped
        if record is not None:
            record.parameters = self.parameters.after_update(
                received_as_left=self._optimizers is None
            )
            record.in_turns = self.parameters.in_turns
            record.updates_in_turns = self.parameters.updates_in_turns
            known = self.parameters.names
            record.updated_by = self._optimizers.updated_by(known) if self._optimizers else {}
        self.parameters.end_step(begins_at_once=self._optimizers is None)
        grouped.prepare_waiting()
        self._passes.clear()

    def _backward_ended(self, record: StepRecord) -> None:
        if record is self._record():
            self.parameters.pass_ended()

    def _follow(self, optimizer: Any) -> Optimizers:
        return Optimizers(
            optimizer,
            self._model,
            self._optimizer_begins,
            self._measure_gradients,
            self._on_end,
            self._is_capturing,
            self._is_captured,
            self._is_paused,
        )

    def _is_capturing(self) -> bool:
        return self.is_capturing()

    def _is_captured(self) -> bool:
        """An optimizer's step is captured: its first replay comes before anything can be read."""
        self._is_update_hidden = self.on_capture()
        return self._is_update_hidden

    def _is_ours(self, optimizer: object) -> bool:
        return self._optimizers is not None and optimizer in self._optimizers

    def _begin(self, *, keep_weights: bool) -> None:
        self.parameters.begin_update(record=self._record() is not None, keep_weights=keep_weights)

    def _are_gradients_wanted(self) -> bool:
        """Whether this step is recorded, also while it is paused, or the next one is."""
        return self._is_recorded or self._is_followed()

    def _measure_gradients(self, names: Collection[str] | None) -> None:
        if self._are_gradients_wanted():
            self.parameters.measure_gradients(
                names, record=self._record() is not None, keep_gradients=self._is_followed()
            )
        else:
            self.parameters.let_go_of_gradients()

    def _optimizer_begins(self, optimizer: Optimizer, first: bool) -> bool:
        record = self._record()
        if self._scaler is not None:
            self._scaler.note_step()
            if record is not None:
                record.scale = self._scaler.scale()
                record.parameter_scale, found_inf = grad_scale_and_found_inf(optimizer)
                record.skipped = record.skipped if found_inf is None else found_inf
        if first and not self._is_update_hidden:
            self._begin(keep_weights=not self._without_update)
        wanted = self._are_gradients_wanted()
        if first and not wanted:
            self.parameters.let_go_of_gradients()
        return wanted

    def _step_is_skipped(self, optimizer: object) -> None:
        """The scaler did not call the optimizer: its step counts, and is marked."""
        record = self._record()
        if record is not None:
            record.skipped = True
        if self._optimizers is not None:
            self._without_update = self._optimizers.count == 1
            self._optimizers.skip(optimizer)
            self._without_update = False
