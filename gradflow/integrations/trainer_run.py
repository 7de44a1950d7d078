"""The run that a trainer's callback records: what the callbacks of all libraries share.

- The callback owns its folder: the tracer is entered when the training begins, and left when it
  ends, fails, is interrupted, or is left behind by a trainer that tells its callbacks nothing.
- An epoch that the trainer has ended is written when the next one begins, a checkpoint is made, or
  the training ends: until then its metrics come in.
- A checkpoint holds the run's state, and a training that goes on from it continues the run.
"""

import inspect
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist

from gradflow import Tracer
from gradflow.errors import RunError, TracingError

# What a callback gives to the tracer by itself.
_GIVEN = ("self", "model", "folder", "optimizer", "scaler", "resume")
# The columns of the table `epochs` that no metric may replace.
_KEYS = ("epoch", "step")


class TrainerRun:
    """A tracer that follows a trainer: entered, continued and left by the trainer's events.

    Args:
        folder: the run folder.
        options: the options of `gradflow.Tracer`, without those that the trainer knows.
        resume: whether a training that goes on from a checkpoint continues the run. Otherwise the
            checkpoint's state is left alone, and a new run begins.

    Raises `TracingError` for an option that the tracer has not.
    """

    def __init__(
        self, folder: str | Path, options: Mapping[str, Any], *, resume: bool = True
    ) -> None:
        self.folder = Path(folder)
        self._options = dict(options)
        self._resume = resume
        self._state: dict[str, Any] | None = None
        self._tracer: Tracer | None = None
        self._metrics: dict[str, float] | None = None
        self._left_open: weakref.finalize[Any, Any] | None = None
        _require_known(self._options)

    @property
    def tracer(self) -> Tracer | None:
        """The tracer, while the training runs."""
        return self._tracer

    def begin(
        self,
        model: Any,
        optimizer: Any,
        *,
        scaler: Any = None,
        goes_on: bool = False,
        over: bool = False,
    ) -> None:
        """Enter the tracer: at the beginning of a training, or when it goes on.

        Args:
            model: the model as the trainer calls it, with what wraps it.
            optimizer: what the tracer takes as `optimizer`.
            scaler: the gradient scaler, if there is one.
            goes_on: whether the training goes on from a checkpoint, or from an earlier part of it.
            over: whether a training that is still open has begun anew, and its rows do not count.

        Raises what the tracer raises; `RunError` also if the run cannot be continued, because the
        checkpoint has no state of it.
        """
        was_open = self._tracer is not None
        self.fail(RuntimeError("the training began again"))
        state = self._state if goes_on and self._resume else None
        if was_open and over:
            state = {}
        tracer = Tracer(
            model,
            self.folder,
            optimizer=optimizer,
            scaler=scaler if optimizer is not None else None,
            resume=state,
            **self._options,
        )
        try:
            tracer.__enter__()
        except RunError as error:
            raise RunError(f"{error}{self._what_to_do(state, goes_on=goes_on)}") from error
        self._tracer = tracer
        # Called when the callback is dropped, or Python ends, whichever comes first.
        self._left_open = weakref.finalize(self, _close_left_open, tracer)

    def log_loss(self, loss: Any) -> None:
        """Record the loss of a pass of the step, if it is a single number."""
        if self._tracer is not None and getattr(loss, "numel", lambda: 1)() == 1:
            self._tracer.log(loss=loss)

    def epoch_is_over(self) -> None:
        """Note that the trainer has ended an epoch: it is written once its metrics are known."""
        if self._tracer is not None and self._metrics is None:
            self._metrics = {}

    def note_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Note metrics of the epoch that is over; what is not a single number is left out."""
        if self._metrics is not None:
            self._metrics |= numbers(metrics)

    @property
    def epoch_waits(self) -> bool:
        """Whether an epoch is over and not written yet."""
        return self._metrics is not None

    @property
    def has_begun_epoch(self) -> bool:
        """Whether steps of the present epoch have ended."""
        return self._tracer is not None and self._tracer.steps > self._tracer.epoch_start

    def write_epoch(self) -> None:
        """Write the epoch that is over, if one waits."""
        if self._tracer is not None and self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            self._tracer.end_epoch(**metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the run; empty before the training begins.

        Of several processes all must call this.
        """
        self.write_epoch()
        if self._tracer is not None:
            self._state = self._tracer.state_dict()
        return dict(self._state or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state from a checkpoint, for the training that begins next.

        One that is still open has failed without a word, and its end is not what is continued.
        """
        self.fail(RuntimeError("the training began again"))
        self._state = dict(state)

    def end(self) -> None:
        """Leave the tracer: the training has ended well."""
        if self._tracer is not None:
            self.state_dict()  # a checkpoint may still be made
            self._leave(None)

    def fail(self, error: BaseException) -> None:
        """Leave the tracer: the training has ended by `error`. Raises nothing."""
        if self._tracer is None:
            return
        # Processes write together: one that has failed cannot wait for the others.
        if not _is_one_of_several():
            with suppress(Exception):
                self._state = self._tracer.state_dict()
        with suppress(Exception):
            self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        tracer, self._tracer, self._metrics = self._tracer, None, None
        if self._left_open is not None:
            self._left_open.detach()
        if tracer is not None:
            tracer.__exit__(None if error is None else type(error), error, None)

    def _what_to_do(self, state: object, *, goes_on: bool) -> str:
        if state:
            return (
                "; the checkpoint belongs to a run that is expected there: give the folder of "
                "that run, or resume=False and another folder to begin a new run"
            )
        if goes_on and self._resume:
            return (
                "; the training goes on from a checkpoint that has no state of gradflow, so the "
                "run cannot be continued from there"
            )
        return ""


class ClosedAtOnce:
    """A callback, with its run in `_run`, whose trainer does not tell it of errors.

    The run is closed when the program ends or the callback is dropped; as a context manager around
    the training, at once.
    """

    _run: TrainerRun

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run.fail(error or RuntimeError("the training was left"))


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of `metrics` that are single numbers, without what names an epoch or step."""
    found = {}
    for name, value in metrics.items():
        if name in _KEYS or isinstance(value, str | bytes):
            continue
        with suppress(TypeError, ValueError, RuntimeError):
            found[name] = float(value)
    return found


def named_like_ours(
    metrics: Mapping[str, Any], prefixes: Mapping[str, str], without: Iterable[str] = ()
) -> dict[str, Any]:
    """`metrics` with their prefixes replaced, such as `eval_loss` by `val_loss`.

    Names that end in one of `without` are left out.
    """
    found = {}
    for name, value in metrics.items():
        if name.endswith(tuple(without)):
            continue
        prefix = next((one for one in prefixes if name.startswith(one)), "")
        found[prefixes.get(prefix, "") + name.removeprefix(prefix)] = value
    return found


def whole_model(model: Any) -> Any:
    """The `DistributedDataParallel` around `model`, where the trainer gives its callbacks less.

    `model` itself if there is none, or this process is the only one.
    """
    if not _is_one_of_several():
        return model
    import gc  # noqa: PLC0415

    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415

    wrappers = (one for one in gc.get_objects() if type(one) is DistributedDataParallel)
    return next((one for one in wrappers if one.module is model), model)


def _is_one_of_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _close_left_open(tracer: Tracer) -> None:
    """Leave the tracer of a training whose trainer never said that it had ended."""
    import sys  # noqa: PLC0415

    # What ended the program, if it did.
    error = getattr(sys, "last_value", None) or RuntimeError("the training was left")
    with suppress(Exception):
        tracer.__exit__(type(error), error, None)


def _require_known(options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(Tracer.__init__).parameters if name not in _GIVEN]
    for name in options:
        if name in _GIVEN:
            raise TracingError(f"{name}= is what the callback takes from the trainer: leave it out")
        if name not in known:
            raise TracingError(
                f"the tracer has no option {name!r}: the callback takes {', '.join(known)}"
            )
