"""Traces what a Trainer of Lightning trains, of `lightning` as of `pytorch_lightning`."""

from pathlib import Path
from typing import Any

from gradflow.integrations.libraries import load_libraries
from gradflow.integrations.trainer_run import TrainerRun

_LIBRARIES = {"lightning.pytorch": "lightning", "pytorch_lightning": "pytorch-lightning"}
_OLDEST = "2.5.1"
_EPOCH = "trainer_epoch"
# Each library asks whether a callback is one of its own, and a program may use either.
_CALLBACKS: Any = [library.Callback for library in load_libraries(_LIBRARIES, _OLDEST)]


class GradflowCallback(*_CALLBACKS):  # type: ignore[misc]
    """Records a run of gradflow while a Trainer of Lightning trains.

        callback = GradflowCallback("runs/mine", schedule=10)
        lightning.Trainer(max_epochs=5, callbacks=[callback]).fit(module, batches)

    Args:
        folder: the run folder; it must not contain a run, unless the training goes on from a
            checkpoint of that run (`fit(..., ckpt_path=...)`).
        resume: whether such a training continues the run; see `TrainerRun`.
        options: those of `gradflow.Tracer`, such as `schedule`, `observe` and `histograms`.

    The module is traced as the Trainer trains it, with its optimizers and gradient scaler, and with
    the processes of a DDP strategy. An epoch's metrics are those in `trainer.callback_metrics`.
    Checkpoints of the Trainer hold the run's state.

    Raises `TracingError` for an option that the tracer has not.
    """

    def __init__(self, folder: str | Path, *, resume: bool = True, **options: Any) -> None:
        self._run = TrainerRun(folder, options, resume=resume)
        self._trainer: Any = None
        self._epoch: int | None = None  # that of the trainer in which steps have been recorded

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Enter the tracer: the sanity check is over, and the checkpoint loaded."""
        self._trainer = trainer
        self._run.begin(
            trainer.strategy.model,
            trainer.optimizers,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            goes_on=trainer.global_step > 0,
        )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the epoch before."""
        self._write_epoch()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin a pass: `training_step` may call parts of the module, and never the module."""
        if self._run.has_begun_epoch and self._epoch != trainer.current_epoch:
            # It ended after the checkpoint was made from which the training goes on.
            self._run.epoch_is_over()
            self._write_epoch()
        self._epoch = trainer.current_epoch
        if self._run.tracer is not None:
            self._run.tracer.begin_pass()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Record the loss, which the Trainer has divided by the batches of a step and scaled."""
        scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "_scale", None)
        loss = loss * trainer.accumulate_grad_batches
        self._run.log_loss(loss if scale is None else loss / scale)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that the epoch is over: the module may still log metrics."""
        self._run.epoch_is_over()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the tracer."""
        self._write_epoch()
        self._run.end()
        self._trainer = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the tracer, with what was recorded."""
        self._run.fail(exception)
        self._trainer = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the run."""
        self._note_metrics()
        state = self._run.state_dict()
        return {**state, _EPOCH: self._epoch} if state else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint holds of the run."""
        self._epoch = state_dict.get(_EPOCH)
        self._run.load_state_dict(state_dict)

    def _write_epoch(self) -> None:
        self._note_metrics()
        self._run.write_epoch()

    def _note_metrics(self) -> None:
        if self._trainer is not None and self._run.epoch_waits:
            self._run.note_metrics(self._trainer.callback_metrics)
