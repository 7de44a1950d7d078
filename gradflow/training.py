"""Trains one network on one split, traced from the first step to the last."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.configuration import Configuration
from gradflow.data import (
    Batch,
    ImageData,
    Split,
    evaluation_batches,
    find_duplicates,
    steps_per_epoch,
    training_batches,
)
from gradflow.hooks.tracer import Tracer
from gradflow.models import build
from gradflow.probes.batchnorm_recalibration import batch_norms, recalibrated
from gradflow.runs.files import write_whole

BEST_CHECKPOINT = "best.pt"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Job:
    """One network to train with one seed, on images already loaded and split."""

    configuration: Configuration
    network: str
    seed: int
    data: ImageData
    split: Split
    device: torch.device
    folder: Path


@dataclass(frozen=True)
class Evaluation:
    """A pass over the validation images, V of them: int64 [V] but for `probability`, float [V]."""

    image: Tensor
    target: Tensor
    prediction: Tensor
    probability: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction of images predicted right."""
        return float((self.prediction == self.target).double().mean())

    def columns(self) -> dict[str, Any]:
        """One row an image, as the tables `predictions` and `recalibration` store them."""
        names = ("image", "target", "prediction", "probability")
        return {name: getattr(self, name).cpu().numpy() for name in names}


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

    def step(self, step: int, loss: float, accuracy: float) -> None:
        """`step` batches of the epoch are done; mean loss and accuracy over them."""

    def epoch(self, summary: EpochSummary) -> None:
        """An epoch is done, validated and on disk."""


def train(job: Job, progress: Progress) -> list[EpochSummary]:
    """Train and trace `job`; its run folder then holds every table and the best checkpoint.

    Raises `RunError` where the folder holds a run already.
    """
    options = job.configuration
    model = build(
        job.network,
        classes=len(job.data.classes),
        norm=options.norm,
        shortcut=options.shortcut,
        init=options.init,
        shortcut_scale=options.shortcut_scale,
        seed=job.seed,
    ).to(job.device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )
    summaries: list[EpochSummary] = []
    best = -math.inf
    with Tracer(
        model,
        job.folder,
        optimizer=optimizer,
        schedule=options.trace_every,
        description=_description(job),
    ) as tracer:
        tracer.writer.append("images", _membership(job), 0, 0)
        for _ in range(options.epochs):
            summary = _run_epoch(job, model, optimizer, tracer, progress, best)
            summaries.append(summary)
            _keep_checkpoints(job, model, summary)
            best = max(best, summary.val_accuracy)
            progress.epoch(summary)
    return summaries


def _run_epoch(
    job: Job,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tracer: Tracer,
    progress: Progress,
    best: float,
) -> EpochSummary:
    start = time.monotonic()
    epoch = tracer.epoch
    train_loss, train_accuracy = _train_epoch(job, epoch, model, optimizer, progress)
    validation = _validate(job, model)
    tracer.write_table("predictions", validation.columns())
    re_estimated = None
    if job.configuration.recalibrate and batch_norms(model):
        with recalibrated(model, _plain_training_images(job)):
            re_estimated = _validate(job, model)
        tracer.write_table("recalibration", re_estimated.columns())
    summary = EpochSummary(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        recalibrated_val_loss=re_estimated.loss if re_estimated else None,
        recalibrated_val_accuracy=re_estimated.accuracy if re_estimated else None,
        seconds=time.monotonic() - start,
        new_best=validation.accuracy > best,
    )
    tracer.end_epoch(
        **{
            name: value
            for name, value in vars(summary).items()
            if name not in ("epoch", "new_best")
        }
    )
    return summary


def _train_epoch(
    job: Job,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> tuple[float, float]:
    """One pass over the training images: mean loss and accuracy, as the weights changed."""
    model.train()
    loss_sum = torch.zeros((), device=job.device)
    correct = torch.zeros((), device=job.device)
    images = 0
    options = job.configuration
    batches = training_batches(
        job.data,
        job.split.training,
        batch_size=options.batch_size,
        seed=job.seed,
        epoch=epoch,
        augment=options.augment,
        device=job.device,
    )
    # On an accelerator a look at the loss waits for the device: now and then is enough there.
    look_every = 1 if job.device.type == "cpu" else 10
    for step, batch in enumerate(batches, 1):
        optimizer.zero_grad(set_to_none=True)
        logits = model(batch.images)
        loss = F.cross_entropy(logits, batch.targets)
        loss.backward()
        optimizer.step()
        images += len(batch.targets)
        loss_sum += loss.detach() * len(batch.targets)
        correct += (logits.detach().argmax(1) == batch.targets).sum()
        if step % look_every == 0:
            progress.step(step, float(loss_sum) / images, float(correct) / images)
    return float(loss_sum) / images, float(correct) / images


@torch.no_grad()
def _validate(job: Job, model: nn.Module) -> Evaluation:
    was_training = model.training
    model.eval()
    parts: list[tuple[Batch, Tensor]] = [
        (batch, model(batch.images))
        for batch in evaluation_batches(
            job.data, job.split.validation, batch_size=_evaluation_size(job), device=job.device
        )
    ]
    model.train(was_training)
    logits = torch.cat([output for _, output in parts])
    target = torch.cat([batch.targets for batch, _ in parts])
    probability, prediction = logits.softmax(1).max(1)
    return Evaluation(
        torch.cat([batch.indices for batch, _ in parts]),
        target,
        prediction,
        probability,
        float(F.cross_entropy(logits, target)),
    )


def _evaluation_size(job: Job) -> int:
    """Without gradients larger batches fit, and they run faster."""
    return min(4 * job.configuration.batch_size, len(job.split.validation))


def _plain_training_images(job: Job) -> Iterator[Tensor]:
    """The training images, not augmented, in batches of the size used in training, shuffled."""
    for batch in training_batches(
        job.data,
        job.split.training,
        batch_size=job.configuration.batch_size,
        seed=job.seed,
        epoch=0,
        augment=False,
        device=job.device,
    ):
        yield batch.images


def _description(job: Job) -> dict[str, Any]:
    options = job.configuration
    duplicates = find_duplicates(job.data)
    return {
        "network": job.network,
        "seed": job.seed,
        "device": _device_name(job.device),
        "classes": list(job.data.classes),
        "images": {
            "all": len(job.data),
            "distinct": duplicates.distinct,
            "under_several_labels": [list(names) for names in duplicates.conflicts],
            "training": len(job.split.training),
            "validation": len(job.split.validation),
            "shape": "x".join(map(str, job.data.images.shape[1:])),
        },
        "steps_per_epoch": steps_per_epoch(len(job.split.training), options.batch_size),
        "configuration": options.as_json() | {"optimizer": "Adam"},
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _membership(job: Job) -> dict[str, Any]:
    subset = ["training"] * len(job.data.labels)
    for index in job.split.validation.tolist():
        subset[index] = "validation"
    return {
        "image": list(range(len(subset))),
        "name": list(job.data.names),
        "label": job.data.labels.numpy(),
        "subset": subset,
        "fingerprint": list(job.data.fingerprints),
    }


def checkpoint_name(epoch: int) -> str:
    """Where in a run's folder the weights at the end of `epoch` are, if each epoch's are kept."""
    return f"{CHECKPOINTS}/epoch-{epoch:04d}.pt"


def _keep_checkpoints(job: Job, model: nn.Module, summary: EpochSummary) -> None:
    names = [BEST_CHECKPOINT] if summary.new_best else []
    if job.configuration.checkpoints == "every":
        (job.folder / CHECKPOINTS).mkdir(exist_ok=True)
        names.append(checkpoint_name(summary.epoch))
    content = {
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "network": job.network,
        "classes": list(job.data.classes),
        "seed": job.seed,
        "epoch": summary.epoch,
        "val_accuracy": summary.val_accuracy,
    }
    for name in names:
        write_whole(job.folder / name, lambda path: torch.save(content, path))
