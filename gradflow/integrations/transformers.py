"""Traces what a Trainer of Hugging Face's transformers trains, and those derived from it."""

import os
from pathlib import Path
from typing import Any

import torch

from gradflow.errors import TracingError
from gradflow.integrations.libraries import load_library
from gradflow.integrations.trainer_run import ClosedAtOnce, TrainerRun, named_like_ours, whole_model

_Callback: Any = load_library("transformers", "transformers", "4.48.0").TrainerCallback
_STATE_FILE = "gradflow.pt"
_NOT_METRICS = ("_runtime", "_per_second", "_compilation_time")


class GradflowCallback(ClosedAtOnce, _Callback):  # type: ignore[misc]
    """Records a run of gradflow while a Trainer of transformers trains.

        Trainer(model, arguments, train_dataset=data, callbacks=[GradflowCallback("runs/mine")])

    Args:
        folder: the run folder; it must not contain a run, unless the training goes on from a
            checkpoint of that run (`train(resume_from_checkpoint=...)`).
        every_steps: end an epoch of the run after each `every_steps` steps, and not with the
            epochs of the training, for a training that ends few of them or none.
        checkpoint: the folder of the checkpoint from which the training goes on, if it is not in
            the Trainer's `output_dir`.
        resume: whether such a training continues the run; see `TrainerRun`.
        options: those of `gradflow.Tracer`, such as `schedule`, `observe` and `histograms`.

    An epoch's metrics are the loss last logged in it (`train_loss`) and those of the evaluation
    after it (`val_loss` for `eval_loss`). Checkpoints of the Trainer get a file with the run's
    state.

    The Trainer does not tell its callbacks of an error. The run is closed when the program ends or
    the callback is dropped; as a context manager, it is closed at once:

        with GradflowCallback("runs/mine") as callback:
            Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()

    Raises `TracingError` for an option that the tracer has not.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_steps: int | None = None,
        checkpoint: str | Path | None = None,
        resume: bool = True,
        **options: Any,
    ) -> None:
        if every_steps is not None and (type(every_steps) is not int or every_steps < 1):
            raise TracingError(f"every_steps= is a number of steps from 1 on, not {every_steps!r}")
        self._run = TrainerRun(folder, options, resume=resume)
        self._every_steps = every_steps
        self._checkpoint = checkpoint
        self._metrics: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Enter the tracer, with the state in the checkpoint if the training goes on from one."""
        if args.n_gpu > 1:
            raise TracingError(
                f"the Trainer runs copies of the model on {args.n_gpu} GPUs in threads: start it "
                "with torchrun, or show it one GPU by CUDA_VISIBLE_DEVICES"
            )
        goes_on = state.global_step > 0
        if goes_on:
            self._load(args, state.global_step)
        optimizer = given["optimizer"]
        self._metrics = {}
        self._run.begin(
            whole_model(given["model"]),
            optimizer,
            scaler=getattr(optimizer, "scaler", None),
            goes_on=goes_on,
            over=bool(args.auto_find_batch_size),
        )
        # The checkpoint was made by the last step of an epoch, before that ended.
        if goes_on and self._run.has_begun_epoch and self._is_end(state):
            self._run.epoch_is_over()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the epoch before."""
        self._write_epoch()

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the epoch before, if epochs are numbers of steps."""
        self._write_epoch()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End an epoch, if epochs are numbers of steps."""
        if self._every_steps and state.global_step % self._every_steps == 0:
            self._run.epoch_is_over()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note that the epoch is over: it may still be evaluated."""
        if not self._every_steps:
            self._run.epoch_is_over()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """Note the loss and the metrics of an evaluation."""
        logged = {
            name: value
            for name, value in (logs or {}).items()
            if name == "loss" or name.startswith("eval_")
        }
        names = {"loss": "train_loss", "eval_": "val_"}
        self._metrics |= named_like_ours(logged, names, _NOT_METRICS)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Put the run's state into the checkpoint that was made."""
        self._note_metrics()
        kept = self._run.state_dict()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if kept and args.should_save and folder.is_dir():
            temporary = folder / f".{_STATE_FILE}"
            torch.save(kept, temporary)
            os.replace(temporary, folder / _STATE_FILE)  # noqa: PTH105

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave the tracer."""
        self._write_epoch()
        self._run.end()

    def _load(self, args: Any, step: int) -> None:
        named = [self._checkpoint, args.resume_from_checkpoint]
        folders = [Path(one) for one in named if isinstance(one, str | Path)]
        for folder in [*folders, Path(args.output_dir) / f"checkpoint-{step}"]:
            if (folder / _STATE_FILE).is_file():
                state = torch.load(folder / _STATE_FILE, map_location="cpu", weights_only=True)
                self._run.load_state_dict(state)
                return

    def _is_end(self, state: Any) -> bool:
        if self._every_steps:
            return bool(state.global_step % self._every_steps == 0)
        return state.epoch is not None and float(state.epoch).is_integer()

    def _write_epoch(self) -> None:
        self._note_metrics()
        self._run.write_epoch()

    def _note_metrics(self) -> None:
        if self._run.epoch_waits:
            self._run.note_metrics(self._metrics)
            self._metrics = {}
