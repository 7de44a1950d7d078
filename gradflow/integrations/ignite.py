"""Traces what an Engine of PyTorch-Ignite trains."""

from pathlib import Path
from typing import Any

from gradflow.integrations.libraries import load_library
from gradflow.integrations.trainer_run import TrainerRun

_Events: Any = load_library("ignite.engine", "pytorch-ignite", "0.5.0").Events


class GradflowHandler:
    """Records a run of gradflow while an Engine of Ignite trains.

        GradflowHandler("runs/mine", schedule=10).attach(trainer, model, optimizer)
        trainer.run(batches, max_epochs=5)

    Args:
        folder: the run folder; it must not contain a run, unless the training goes on from a
            checkpoint that has the handler's state: give the handler to `Checkpoint` by a name of
            its own, as the model and the optimizer.
        resume: whether such a training continues the run; see `TrainerRun`.
        options: those of `gradflow.Tracer`, such as `schedule`, `observe` and `histograms`.

    An epoch's metrics are those in `trainer.state.metrics`.

    Raises `TracingError` for an option that the tracer has not.
    """

    def __init__(self, folder: str | Path, *, resume: bool = True, **options: Any) -> None:
        self._run = TrainerRun(folder, options, resume=resume)
        self._engine: Any = None

    def attach(self, engine: Any, model: Any, optimizer: Any, scaler: Any = None) -> None:
        """Follow `engine`, which trains `model` by `optimizer`; both as `gradflow.Tracer` takes."""

        def begins(engine: Any) -> None:
            self._engine = engine
            goes_on = engine.state.iteration > 0
            self._run.begin(model, optimizer, scaler=scaler, goes_on=goes_on)

        engine.add_event_handler(_Events.STARTED, begins)
        engine.add_event_handler(_Events.EPOCH_STARTED, self._write_epoch)
        engine.add_event_handler(_Events.EPOCH_COMPLETED, self._run.epoch_is_over)
        engine.add_event_handler(_Events.COMPLETED, self._ends)
        engine.add_event_handler(_Events.EXCEPTION_RAISED, self._fails)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the run."""
        self._note_metrics()
        return self._run.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint holds of the run."""
        self._run.load_state_dict(state_dict)

    def _ends(self) -> None:
        self._write_epoch()
        self._run.end()

    def _fails(self, engine: Any, error: BaseException) -> None:
        self._run.fail(error)
        # An engine raises its error only if nobody handles it; others decide for themselves.
        if len(engine._event_handlers[_Events.EXCEPTION_RAISED]) == 1:
            raise error

    def _write_epoch(self) -> None:
        self._note_metrics()
        self._run.write_epoch()

    def _note_metrics(self) -> None:
        if self._engine is not None and self._run.epoch_waits:
            self._run.note_metrics(self._engine.state.metrics)
