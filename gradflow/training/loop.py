"""The training loop: trains one network under the tracer, epoch by epoch."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.errors import TrainingError
from gradflow.hooks.selection.schedules import DescribedSchedule, first_recorded_of_each_epoch
from gradflow.hooks.state import resume_point
from gradflow.hooks.tracer import Tracer
from gradflow.probes.execution import run_probes
from gradflow.probes.probe import Probe
from gradflow.recalibration.estimation import batch_norms, recalibrated
from gradflow.runs.format.limits import restoring
from gradflow.training import checkpoints
from gradflow.training.epoch_probes import make_subject, needs_previous_state, requested_probes
from gradflow.training.evaluation import Evaluation, accuracy_changed, evaluate
from gradflow.training.job import Job
from gradflow.training.optimizer_state import restore_optimizer, restore_scaler
from gradflow.training.state import (
    TrainingState,
    discard_state,
    load_state,
    save_state,
    saved_validation,
    set_random_state,
)
from gradflow.training.steps.computation import exact
from gradflow.training.steps.losses import EpochLosses, Reading
from gradflow.training.steps.nonfinite import (
    find_nonfinite,
    gradients_are_finite,
    nonfinite_from_trace,
)
from gradflow.training.steps.times import StepTimes


@dataclass(frozen=True)
class EpochSummary:
    """The results of an epoch; losses are mean cross-entropies in nats, accuracies fractions.

    `val_balanced_accuracy` is the mean of the classes' accuracies.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    recalibrated_val_loss: float | None
    recalibrated_val_accuracy: float | None
    seconds: float
    new_best: bool
    # None in runs of older versions, which did not record it.
    val_balanced_accuracy: float | None = None


class Progress(Protocol):
    """Callbacks that show the progress of a training."""

    def on_start(self, epoch: int) -> None:
        """The training begins with `epoch`, which is not the first if a run is resumed."""

    def on_steps_done(self, step: int, loss: float, accuracy: float) -> None:
        """`step` batches of the epoch are done; `loss` and `accuracy` are means over them."""

    def on_epoch_end(self, summary: EpochSummary) -> None:
        """An epoch is trained, validated and on disk."""


@dataclass
class _Training(TrainingState):
    """The state of a training, its job, its probes and its progress display."""

    job: Job
    forward: Callable[[Tensor], Tensor]
    probes: tuple[Probe, ...]
    progress: Progress
    previous_state: dict[str, Tensor] | None = field(default=None, repr=False)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the saved `state` of an interrupted training."""
        self.best = float(state["best"])
        self.validation = saved_validation(state, self.job.device)
        if self.validation is not None and not self.validation.matches(self.job):
            raise ValueError("its validation results belong to other images")
        if self.scaler is not None:
            restore_scaler(self.scaler, state["scaler"])
        self.remember_weights()
        set_random_state(state["random"])

    def remember_weights(self) -> None:
        """Copy the present weights if a probe of the next epoch will need them."""
        if needs_previous_state(self.probes):
            state = self.model.state_dict()
            self.previous_state = {name: value.detach().clone() for name, value in state.items()}


def train(job: Job, progress: Progress, *, resume: bool = False) -> list[EpochSummary]:
    """Train and trace `job`; its run folder then holds every table and the best checkpoint.

    Args:
        job: the network, the images and the folder.
        progress: its methods are called as the training proceeds.
        resume: resume the run in the folder from its last saved state.

    Returns the summaries of the epochs that this call trained.

    Raises `RunError` if the folder already holds a run; with `resume`, if it holds none, or if its
    state or images do not match.
    """
    with job.computation.running():
        summaries = _train(job.placed(), progress, resume=resume)
    discard_state(job.folder)
    return summaries


def _train(job: Job, progress: Progress, *, resume: bool) -> list[EpochSummary]:
    options, computation = job.configuration, job.computation
    state = load_state(job.folder) if resume else None
    model = job.build_model()
    optimizer = computation.optimizer(model, options)
    if state is not None:
        with restoring(f"the state in {job.folder}"):
            model.load_state_dict(state["model"])
            restore_optimizer(optimizer, state["optimizer"])
            if resume_point(state["tracer"])[0] > options.epochs + 1:
                raise ValueError("its epoch is after the last epoch")
    scaler = computation.scaler()
    tracer = Tracer(
        model,
        job.folder,
        optimizer=optimizer,
        schedule=job.schedule(),
        histograms=_histogram_steps(job),
        description=job.description(),
        scaler=scaler,
        resume=(state["tracer"] if state else {}) if resume else None,
        strict=True,
        sinks=job.sinks(),
    )
    training = _Training(
        model,
        optimizer,
        tracer,
        best=-math.inf,
        validation=None,
        scaler=scaler,
        job=job,
        forward=computation.in_steps(model),
        probes=requested_probes(options),
        progress=progress,
    )
    with tracer:
        if state is None:
            tracer.writer.append("images", job.image_columns(), 0, 0)
        else:
            with restoring(f"the state in {job.folder}"):
                training.restore(state)
        progress.on_start(tracer.epoch)
        return [_run_epoch(training) for _ in range(tracer.epoch, options.epochs + 1)]


def _histogram_steps(job: Job) -> DescribedSchedule | bool:
    """The steps at which histograms are recorded: one per epoch, so the cost is negligible."""
    if not job.configuration.histograms:
        return False
    return first_recorded_of_each_epoch(job.steps_per_epoch)


def _run_epoch(training: _Training) -> EpochSummary:
    start = time.monotonic()
    job, model, tracer = training.job, training.model, training.tracer
    epoch = tracer.epoch
    times = StepTimes()
    train_loss, train_accuracy = _train_epoch(training, times)
    validation = evaluate(model, job)
    tracer.write_table("predictions", validation.columns())
    costs: dict[str, float] = {}
    re_estimated = _recalibrate(training, costs)
    summary = EpochSummary(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        recalibrated_val_loss=re_estimated.loss if re_estimated else None,
        recalibrated_val_accuracy=re_estimated.accuracy if re_estimated else None,
        seconds=time.monotonic() - start,
        new_best=validation.accuracy > training.best,
        val_balanced_accuracy=validation.balanced_accuracy,
    )
    _probe(training, epoch, validation, costs)
    training.best = max(training.best, validation.accuracy)
    training.validation = validation
    training.remember_weights()
    tracer.end_epoch(
        **{
            name: value
            for name, value in vars(summary).items()
            if name not in ("epoch", "new_best")
        },
        # On other devices the program does not wait for the step, so the times would be wrong.
        **(times.columns() if job.device.type == "cpu" else {}),
    )
    _save_checkpoints(job, model, summary)
    if epoch % job.configuration.state_every == 0:
        # Saved last, when all data of the epoch is on disk: a resumed run starts from here.
        save_state(job.folder, training.state_dict(), tracer.steps)
    training.progress.on_epoch_end(summary)
    return summary


def _recalibrate(training: _Training, costs: dict[str, float]) -> Evaluation | None:
    """Validate with re-estimated batch-norm statistics, if asked for and the model has any."""
    job, model, tracer = training.job, training.model, training.tracer
    if not (job.configuration.recalibrate and batch_norms(model)):
        return None
    start = time.monotonic()
    images = (batch.images for batch in job.unaugmented_training_batches())
    with job.computation.autocast(), recalibrated(model, images) as staleness:
        evaluation = evaluate(model, job)
    tracer.write_table("recalibration", evaluation.columns())
    tracer.write_table("batchnorm_staleness", staleness)
    costs["batchnorm_recalibration"] = time.monotonic() - start
    return evaluation


def _probe(
    training: _Training, epoch: int, validation: Evaluation, costs: Mapping[str, float]
) -> None:
    """Run the probes that are due at the end of `epoch`, always in float32.

    Many of them are small differences of losses, which lower precisions would round away.
    """
    before = training.validation
    subject = make_subject(
        training.job,
        training.model,
        epoch,
        is_last_epoch=epoch == training.job.configuration.epochs,
        accuracy_changed=before is not None and accuracy_changed(before, validation),
        previous_state=training.previous_state,
    )
    with exact():
        run_probes(training.probes, subject, training.tracer.write_table, costs)


def _train_epoch(training: _Training, times: StepTimes) -> tuple[float, float]:
    """Train for one epoch; the mean loss and accuracy over its steps, each before its update.

    On an accelerator nothing here waits for the device before the last step, but `--on-nonfinite
    skip`, which has to know each loss and gradient.
    """
    job, optimizer, computation = training.job, training.optimizer, training.job.computation
    training.model.train()
    known = EpochLosses(job.device, job.steps_per_epoch)
    reading = None
    for batch in job.training_batches(training.tracer.epoch):
        with times.step(recorded=training.tracer.recording):
            optimizer.zero_grad(set_to_none=True)
            logits = computation.forward(training.forward, batch.images)
            loss = F.cross_entropy(logits, batch.targets)
            training.tracer.log(loss=loss)
            new = known.add(loss, logits, batch.targets)
            if new is not None:
                # Before the update, which would spoil the weights needed to find the cause.
                _stop_if_nonfinite(training, new, known.steps, batch)
            _update(training, loss)
        if new is not None:
            reading = new
            training.progress.on_steps_done(reading.step, reading.loss, reading.accuracy)
    if reading is None:
        raise AssertionError("an epoch has at least one step, and its last one is read")
    return reading.loss, reading.accuracy


def _update(training: _Training, loss: Tensor) -> None:
    """Differentiate `loss`, and update the weights unless the step is to be skipped."""
    if training.scaler is not None:
        # The scaler itself skips a step whose gradients are not finite, and lowers its scale.
        training.scaler.scale(loss).backward()
        training.scaler.step(training.optimizer)
        training.scaler.update()
        return
    loss.backward()
    if _should_update(training, loss):
        training.optimizer.step()
    else:
        training.tracer.skip_step()


def _should_update(training: _Training, loss: Tensor) -> bool:
    """Whether to update the weights. Only `--on-nonfinite skip` ever says no."""
    if training.job.configuration.on_nonfinite != "skip":
        return True
    return bool(torch.isfinite(loss)) and gradients_are_finite(training.model)


def _stop_if_nonfinite(training: _Training, known: Reading, step: int, batch: Batch) -> None:
    """Raise `TrainingError` if one of the `known` losses is not finite, with option `stop`.

    `step` and `batch` are the present ones of the epoch; the losses may be older.
    """
    if training.job.configuration.on_nonfinite != "stop":
        return
    finite = [math.isfinite(loss) for loss in known.losses]
    if all(finite):
        return
    steps_ago = step - known.step + len(finite) - 1 - finite.index(False)
    found = _describe_cause(training, batch, steps_ago)
    training.tracer.writer.describe(stopped_by=found)
    raise TrainingError(
        f"the training of {training.job.network} stopped: {found}; the recorded rows are in "
        f"{training.job.folder}; try a lower --lr, or --on-nonfinite skip"
    )


def _describe_cause(training: _Training, batch: Batch, steps_ago: int) -> str:
    """Say in which layer the first non-finite value appeared, given that the loss of the step
    `steps_ago` steps ago is not finite."""
    step = training.tracer.steps - steps_ago
    if steps_ago == 0:
        with training.job.computation.autocast():
            place = find_nonfinite(training.model, batch, step)
        return str(place) if place else f"the loss of step {step} was not finite, but is on a rerun"
    # The weights have been spoiled since then, so only the recorded rows can show the cause.
    place = nonfinite_from_trace(training.tracer.first_nonfinite())
    if place is not None and place.step <= step:
        return str(place)
    return (
        f"the loss of step {step} was not finite, and that step was not recorded "
        "(--trace-every 1 records every step)"
    )


def _save_checkpoints(job: Job, model: nn.Module, summary: EpochSummary) -> None:
    paths = [job.folder / checkpoints.BEST] if summary.new_best else []
    if job.configuration.checkpoints == "every":
        paths.append(checkpoints.epoch_checkpoint_path(job.folder, summary.epoch))
    for path in paths:
        checkpoints.save(
            path,
            model,
            network=job.network,
            classes=list(job.data.classes),
            seed=job.seed,
            epoch=summary.epoch,
            val_accuracy=summary.val_accuracy,
        )
