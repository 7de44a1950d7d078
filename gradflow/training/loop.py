"""Trains one network on one split, traced from the first step to the last."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.errors import TrainingError
from gradflow.hooks.schedules import DescribedSchedule, first_recorded_of_each_epoch
from gradflow.hooks.state import resume_point
from gradflow.hooks.tracer import Tracer
from gradflow.probes.execution import run_probes
from gradflow.probes.network.recalibration import batch_norms, recalibrated
from gradflow.probes.probe import Probe
from gradflow.runs.format.limits import restoring
from gradflow.training import checkpoints
from gradflow.training.epoch_probes import needs_previous, subject_of, wanted_probes
from gradflow.training.evaluation import Evaluation, evaluate, moved_beyond_noise
from gradflow.training.job import Job
from gradflow.training.nonfinite import as_recorded, find_nonfinite, gradients_are_finite
from gradflow.training.optimizer_state import restore_optimizer
from gradflow.training.state import (
    TrainingState,
    discard_state,
    load_state,
    save_state,
    set_random_state,
    validation_of,
)
from gradflow.training.step_times import StepTimes


@dataclass(frozen=True)
class EpochSummary:
    """What an epoch came to; losses are mean cross-entropies in nats, accuracies fractions."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    recalibrated_val_loss: float | None
    recalibrated_val_accuracy: float | None
    seconds: float
    new_best: bool


class Progress(Protocol):
    """Who is told how the training goes."""

    def begin(self, epoch: int) -> None:
        """The training begins with `epoch`; later than the first where it is gone on with."""

    def step(self, step: int, loss: float, accuracy: float) -> None:
        """`step` batches of the epoch are done; mean loss and accuracy over them."""

    def epoch(self, summary: EpochSummary) -> None:
        """An epoch is done, validated and on disk."""


@dataclass
class _Training(TrainingState):
    """A training under way."""

    job: Job
    probes: tuple[Probe, ...]
    progress: Progress
    previous: dict[str, Tensor] | None = field(default=None, repr=False)

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Remember what the training remembered that was interrupted."""
        self.best = float(state["best"])
        self.validation = validation_of(state, self.job.device)
        if self.validation is not None and not self.validation.fits(self.job):
            raise ValueError("its validation is of other images")
        self.remember_weights()
        set_random_state(state["random"])

    def remember_weights(self) -> None:
        """Keep the weights as they are, where a probe of the next epoch looks back at them."""
        if needs_previous(self.probes):
            state = self.model.state_dict()
            self.previous = {name: value.detach().clone() for name, value in state.items()}


def train(job: Job, progress: Progress, *, resume: bool = False) -> list[EpochSummary]:
    """Train and trace `job`; its run folder then holds every table and the best checkpoint.

    Args:
        job: what to train, and where to write.
        progress: told how it goes.
        resume: go on with the run in the folder from the end of its last whole epoch.

    Returns what each epoch came to that was trained by this call.

    Raises `RunError` where the folder holds a run already; with `resume`, where it holds none, or
    one whose state or images are not as they were.
    """
    options = job.configuration
    state = load_state(job.folder) if resume else None
    model = job.build_model()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )
    if state is not None:
        with restoring(f"the state in {job.folder}"):
            model.load_state_dict(state["model"])
            restore_optimizer(optimizer, state["optimizer"])
            if resume_point(state["tracer"])[0] > options.epochs + 1:
                raise ValueError("it is of an epoch after the last")
    tracer = Tracer(
        model,
        job.folder,
        optimizer=optimizer,
        schedule=options.trace_every,
        histograms=_histogram_steps(job),
        description=job.description(),
        resume=(state["tracer"] if state else {}) if resume else None,
    )
    training = _Training(
        model, optimizer, tracer, -math.inf, None, job, wanted_probes(options), progress
    )
    with tracer:
        if state is None:
            tracer.writer.append("images", job.membership(), 0, 0)
        else:
            with restoring(f"the state in {job.folder}"):
                training.go_on_from(state)
        progress.begin(tracer.epoch)
        summaries = [_run_epoch(training) for _ in range(tracer.epoch, options.epochs + 1)]
    discard_state(job.folder)
    return summaries


def _histogram_steps(job: Job) -> DescribedSchedule | bool:
    """The steps at which magnitudes are counted: so few that they cost next to nothing."""
    options = job.configuration
    if not options.histograms:
        return False
    return first_recorded_of_each_epoch(job.steps_per_epoch, options.trace_every)


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
        # Elsewhere the program does not wait for the device, and times are not those of its work.
        **(times.columns() if job.device.type == "cpu" else {}),
    )
    _keep_checkpoints(job, model, summary)
    if epoch % job.configuration.state_every == 0:
        # Last: a run goes on from here only once everything of the epoch is on disk.
        save_state(job.folder, training.state_dict(), tracer.steps)
    training.progress.epoch(summary)
    return summary


def _recalibrate(training: _Training, costs: dict[str, float]) -> Evaluation | None:
    """Validate with re-estimated batch-norm statistics, where there are any and it is asked for."""
    job, model, tracer = training.job, training.model, training.tracer
    if not (job.configuration.recalibrate and batch_norms(model)):
        return None
    start = time.monotonic()
    images = (batch.images for batch in job.plain_training_batches())
    with recalibrated(model, images) as staleness:
        evaluation = evaluate(model, job)
    tracer.write_table("recalibration", evaluation.columns())
    tracer.write_table("batchnorm_staleness", staleness)
    costs["batchnorm_recalibration"] = time.monotonic() - start
    return evaluation


def _probe(
    training: _Training, epoch: int, validation: Evaluation, costs: Mapping[str, float]
) -> None:
    """Run the probes that are due, and remember what those of the next epoch look back at."""
    before = training.validation
    subject = subject_of(
        training.job,
        training.model,
        epoch,
        last=epoch == training.job.configuration.epochs,
        moved=before is not None and moved_beyond_noise(before, validation),
        previous=training.previous,
    )
    run_probes(training.probes, subject, training.tracer.write_table, costs)


def _train_epoch(training: _Training, times: StepTimes) -> tuple[float, float]:
    """One pass over the training images: mean loss and accuracy, as the weights changed."""
    job, model, optimizer = training.job, training.model, training.optimizer
    model.train()
    loss_sum = torch.zeros((), device=job.device)
    correct = torch.zeros((), device=job.device)
    images = 0
    losses: list[Tensor] = []
    look_every = _look_every(job.device)
    for step, batch in enumerate(job.training_batches(training.tracer.epoch), 1):
        look = step % look_every == 0 or step == job.steps_per_epoch
        with times.step(recorded=training.tracer.recording):
            optimizer.zero_grad(set_to_none=True)
            logits = model(batch.images)
            loss = F.cross_entropy(logits, batch.targets)
            images += len(batch.targets)
            losses.append(loss.detach())
            loss_sum += loss.detach() * len(batch.targets)
            correct += (logits.detach().argmax(1) == batch.targets).sum()
            if look:
                # Before the update, which would spoil the weights in which the cause is sought.
                _stop_where_nonfinite(training, losses, batch)
                losses.clear()
            loss.backward()
            if _may_update(training, loss):
                optimizer.step()
            else:
                training.tracer.skip_step()
        if look:
            training.progress.step(step, float(loss_sum) / images, float(correct) / images)
    return float(loss_sum) / images, float(correct) / images


def _may_update(training: _Training, loss: Tensor) -> bool:
    """Whether the weights may be changed; only `skip` looks before each update."""
    if training.job.configuration.on_nonfinite != "skip":
        return True
    return bool(torch.isfinite(loss)) and gradients_are_finite(training.model)


def _look_every(device: torch.device) -> int:
    """Steps from one look at the losses to the next, and one is had at the end of an epoch.

    On an accelerator a look waits for the device: now and then is enough there.
    """
    return 1 if device.type == "cpu" else 10


def _stop_where_nonfinite(training: _Training, losses: list[Tensor], batch: Batch) -> None:
    """Raise `TrainingError` where a loss since the last look is not finite and that ends it."""
    if training.job.configuration.on_nonfinite != "stop":
        return
    finite = torch.isfinite(torch.stack(losses)).tolist()
    if all(finite):
        return
    steps_ago = len(losses) - 1 - finite.index(False)
    found = _cause(training, batch, steps_ago)
    training.tracer.writer.describe(stopped_by=found)
    raise TrainingError(
        f"the training of {training.job.network} stopped: {found}; what was recorded is in "
        f"{training.job.folder}; try a lower --lr, or --on-nonfinite skip"
    )


def _cause(training: _Training, batch: Batch, steps_ago: int) -> str:
    """Where the first value that is not finite stood, of the loss found so `steps_ago`."""
    step = training.tracer.steps - steps_ago
    if steps_ago == 0:
        place = find_nonfinite(training.model, batch, step)
        return str(place) if place else f"the loss of step {step} was not finite, but is now"
    # The weights have been spoiled since: only what was recorded can tell.
    place = as_recorded(training.tracer.first_nonfinite())
    if place is not None and place.step <= step:
        return str(place)
    return (
        f"the loss of step {step} was not finite, and that step was not recorded "
        "(--trace-every 1 records every step)"
    )


def _keep_checkpoints(job: Job, model: nn.Module, summary: EpochSummary) -> None:
    paths = [job.folder / checkpoints.BEST] if summary.new_best else []
    if job.configuration.checkpoints == "every":
        paths.append(checkpoints.path_of_epoch(job.folder, summary.epoch))
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
