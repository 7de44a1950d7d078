"""Traces what a model of Ultralytics trains."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from gradflow.integrations.libraries import load_library
from gradflow.integrations.trainer_run import ClosedAtOnce, TrainerRun, named_like_ours

load_library("ultralytics", "ultralytics", "8.3.0")
_STATE_FILE = "gradflow.pt"
_EVENTS = (
    "on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_model_save",
    "on_fit_epoch_end", "on_train_end", "teardown",
)  # fmt: skip


class GradflowCallback(ClosedAtOnce):
    """Records a run of gradflow while a model of Ultralytics trains.

        model = YOLO("yolov8n.yaml")
        GradflowCallback("runs/mine", schedule=10).attach(model)
        model.train(data="coco8.yaml", epochs=5)

    Args:
        folder: the run folder; it must not contain a run, unless the training goes on from a
            checkpoint of that run (`train(resume=True)`).
        resume: whether such a training continues the run; see `TrainerRun`.
        options: those of `gradflow.Tracer`, such as `schedule`, `observe` and `histograms`.

    A step is one of the optimizer, after as many batches as Ultralytics accumulates. An epoch's
    metrics are the losses (`train_box_loss`, `val_box_loss`) and those of the validation, such as
    `metrics/mAP50(B)`. The run's state is in a file beside `last.pt`. Where a training on several
    GPUs is started by `device=[0, 1]`, Ultralytics leaves callbacks behind: nothing is recorded.

    Raises `TracingError` for an option that the tracer has not.
    """

    def __init__(self, folder: str | Path, *, resume: bool = True, **options: Any) -> None:
        self._run = TrainerRun(folder, options, resume=resume)
        self._metrics_before: Any = None  # the trainer's, before the epoch's validation

    def attach(self, model: Any) -> None:
        """Follow the trainings of `model`, by its `add_callback`."""
        for event in _EVENTS:
            model.add_callback(event, getattr(self, event))

    def on_train_start(self, trainer: Any) -> None:
        """Enter the tracer, with the state beside the checkpoint if the training goes on."""
        goes_on = trainer.start_epoch > 0
        if goes_on:
            self._load(trainer)
        scaler = trainer.scaler if trainer.scaler.is_enabled() else None
        self._run.begin(trainer.model, trainer.optimizer, scaler=scaler, goes_on=goes_on)

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Write the epoch before."""
        self._write_epoch(trainer)

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Note that the epoch is over: it may still be validated."""
        self._run.epoch_is_over()
        self._metrics_before = trainer.metrics

    def on_model_save(self, trainer: Any) -> None:
        """Put the run's state beside the checkpoint that was made."""
        self._note_metrics(trainer)
        kept = self._run.state_dict()
        if kept:
            file = Path(trainer.wdir) / _STATE_FILE
            temporary = file.with_name(f".{_STATE_FILE}")
            torch.save(kept, temporary)
            os.replace(temporary, file)  # noqa: PTH105

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Write the epoch, with the metrics of its validation."""
        self._write_epoch(trainer)

    def on_train_end(self, trainer: Any) -> None:
        """Leave the tracer."""
        self._write_epoch(trainer)
        self._run.end()

    def teardown(self, trainer: Any) -> None:
        """Leave the tracer of a training that did not end: called while its error is raised."""
        self._run.fail(sys.exc_info()[1] or RuntimeError("the training was left"))

    def _load(self, trainer: Any) -> None:
        file = Path(trainer.wdir) / _STATE_FILE
        if file.is_file():
            state = torch.load(file, map_location="cpu", weights_only=True)
            self._run.load_state_dict(state)

    def _write_epoch(self, trainer: Any) -> None:
        self._note_metrics(trainer)
        self._run.write_epoch()

    def _note_metrics(self, trainer: Any) -> None:
        if self._run.epoch_waits:
            metrics = dict(trainer.label_loss_items(trainer.tloss))
            # Without a validation in the epoch, those of an earlier one are still there.
            if trainer.metrics is not self._metrics_before:
                metrics |= trainer.metrics
            self._run.note_metrics(named_like_ours(metrics, {"train/": "train_", "val/": "val_"}))
