"""Traces what a Learner of fastai trains."""

from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from gradflow.integrations.libraries import load_library
from gradflow.integrations.trainer_run import ClosedAtOnce, TrainerRun, named_like_ours

_Callback: Any = load_library("fastai.callback.core", "fastai", "2.7.18").Callback


class GradflowCallback(ClosedAtOnce, _Callback):  # type: ignore[misc]
    """Records a run of gradflow while a Learner of fastai trains.

        learner = Learner(data, model, cbs=GradflowCallback("runs/mine", schedule=10))

    Args:
        folder: the run folder; it must not contain a run.
        options: those of `gradflow.Tracer`, such as `schedule`, `observe` and `histograms`.

    Several `fit` of one learner, as `fine_tune` makes them, are one run; searches for a learning
    rate are left out. An epoch's metrics are those that the Learner prints. fastai keeps no state
    of callbacks: save `state_dict()` beside the model, and give it to `load_state_dict` before a
    training that goes on. Errors are as with `ClosedAtOnce`.

    Raises `TracingError` for an option that the tracer has not.
    """

    order = 60  # after the Recorder, which has the metrics

    def __init__(self, folder: str | Path, **options: Any) -> None:
        super().__init__()
        self._run = TrainerRun(folder, options)
        self._steps_by_hand = False

    def before_fit(self) -> None:
        """Enter the tracer, or go on with the run of the `fit` before."""
        # The Learner's own attributes say so; `run` switches a callback off.
        self.run = not hasattr(self.learn, "lr_finder") and not hasattr(self, "gather_preds")
        if not self.run:
            return
        # fastai's own optimizers are none of torch.
        optimizer = getattr(self.learn.opt, "opt", None)
        self._steps_by_hand = not isinstance(optimizer, Optimizer)
        self._run.begin(self.learn.model, None if self._steps_by_hand else optimizer, goes_on=True)

    def after_loss(self) -> None:
        """Record the loss of a training batch."""
        if self.learn.training:
            self._run.log_loss(self.learn.loss)

    def after_step(self) -> None:
        """End the step, before the gradients are zeroed."""
        if self._steps_by_hand and self._run.tracer is not None:
            self._run.tracer.step()

    def after_epoch(self) -> None:
        """End the epoch, with its metrics."""
        self._run.epoch_is_over()
        recorder = self.learn.recorder
        metrics = dict(zip(recorder.metric_names, recorder.log, strict=False))
        self._run.note_metrics(named_like_ours(metrics, {"valid_": "val_"}, ("time",)))
        self._run.write_epoch()

    def after_fit(self) -> None:
        """Leave the tracer."""
        self._run.end()

    def state_dict(self) -> dict[str, Any]:
        """Return what to save beside the model, to continue the run from there."""
        return self._run.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was saved, for the `fit` that comes next."""
        self._run.load_state_dict(state_dict)
