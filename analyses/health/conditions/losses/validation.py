"""Whether the validation loss of one run rises while the training loss falls."""

from dataclasses import dataclass

import numpy as np

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import Reading
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run

# Names under which epochs have the loss of training and, best first, of validation. Re-estimated
# batch-norm statistics come first: stale ones make the validation loss jump for another reason.
_TRAINING = ("train_loss", "training_loss")
_VALIDATION = ("recalibrated_val_loss", "val_loss", "validation_loss", "eval_loss", "valid_loss")
_ACCURACY = (
    "recalibrated_val_accuracy",
    "val_accuracy",
    "validation_accuracy",
    "eval_accuracy",
    "val_acc",
)
# After the best epoch: fewer cannot show a trend at this level (4 epochs in order have 1/24).
MIN_EPOCHS = 5
_LEVEL = 0.025


@dataclass(frozen=True)
class ValidationBounds(Bounds):
    """Bounds of the condition of this module.

    Fields:
        overfitting: for the validation loss at the end over the least one.
    """

    overfitting: float = 1.1


def overfitting_answer(run: Run, overfitting: float) -> Answer:
    """Whether the validation loss rises from its best epoch on while the training loss falls.

    The end is the median of the last third of the epochs after the best one, three at least. The
    rise counts if Kendall's rank correlation of these losses with time is above 0 beyond chance;
    the best epoch itself, which was chosen for its loss, is left out. Not asked without both
    losses, or with fewer than 7 epochs.
    """
    found = _losses(run)
    if isinstance(found, NotAsked):
        return found
    training, validation, epochs = found
    best = int(np.argmin(validation))
    after = validation[best + 1 :]
    size = max(3, -(-len(after) // 3))
    end = float(np.median(after[-size:])) if len(after) else float(validation[-1])
    ratio = end / float(validation[best])
    falls = float(np.median(training[-size:])) < float(training[best])
    if ratio <= overfitting or not falls:
        verdict, note = Verdict.CONTRADICTED, ""
    else:
        verdict, note = _verdict(after, still_better=_accuracy_still_rises(run, epochs, best))
    ill = verdict is Verdict.SUPPORTED
    return Reading(
        "overfitting",
        verdict,
        "validation loss at the end over the least one",
        "",
        ratio,
        None,
        None,
        None,
        False,
        overfitting,
        f"above {number(overfitting)}, and rising",
        f"median of the last {size} of {plural(len(after), 'epoch')} after the best one; one-sided "
        f"test of Kendall's rank correlation at {percent(_LEVEL)}",
        note,
        said=(
            f"the validation loss was least in epoch {epochs[best]:.0f}, "
            f"{number(validation[best])}, and has risen to {number(end)} while the training loss "
            f"fell to {number(training[-1])}"
            if ill
            else ""
        ),
        since=_last_step(run, epochs[best]) if ill else None,
        otherwise=(
            "Confident wrong answers raise the loss while the accuracy holds: look at the accuracy "
            "beside it."
            if ill
            else ""
        ),
    )


def _losses(run: Run) -> tuple[Array, Array, Array] | NotAsked:
    """Training loss, validation loss and number of each epoch that has both."""
    names = [_first(run, names) for names in (_TRAINING, _VALIDATION)]
    if None in names:
        return NotAsked("overfitting", "the epochs have no training and validation loss")
    columns = ["epoch", *(name for name in names if name is not None)]
    values = run.epochs[columns].to_numpy(dtype=float)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < MIN_EPOCHS + 2:
        return NotAsked(
            "overfitting",
            f"{MIN_EPOCHS + 2} epochs with both losses are needed, and there are {len(values)}",
        )
    if values[:, 2].min() <= 0:
        return NotAsked("overfitting", "a loss that is not above 0 has no ratio")
    return values[:, 1], values[:, 2], values[:, 0]


def _first(run: Run, names: tuple[str, ...]) -> str | None:
    """The first of `names` that the epochs have a number of."""
    epochs = run.epochs
    return next((name for name in names if name in epochs and epochs[name].notna().any()), None)


def _rises(losses: Array) -> bool:
    from scipy import stats  # noqa: PLC0415 - takes long, and few trainings need it

    time = np.arange(len(losses))
    return bool(stats.kendalltau(time, losses, alternative="greater").pvalue < _LEVEL)


def _accuracy_still_rises(run: Run, epochs: Array, best: int) -> bool:
    """Whether the validation accuracy after the best epoch of the loss rises beyond chance."""
    name = _first(run, _ACCURACY)
    if name is None:
        return False
    accuracy = run.epochs.set_index("epoch")[name].reindex(epochs[best + 1 :]).to_numpy(dtype=float)
    accuracy = accuracy[np.isfinite(accuracy)]
    return len(accuracy) >= MIN_EPOCHS and _rises(accuracy)


def _verdict(after: Array, *, still_better: bool) -> tuple[Verdict, str]:
    """The verdict on losses after the best one that end above it, and a note."""
    if len(after) < MIN_EPOCHS or not _rises(after):
        return Verdict.INCONCLUSIVE, (
            "It lies above the least one, but not in a trend beyond chance over "
            f"{plural(len(after), 'epoch')}."
        )
    if still_better:
        return Verdict.CONTRADICTED, (
            "The validation loss rises and the validation accuracy still does too: wrong answers "
            "become more confident, not more."
        )
    return Verdict.SUPPORTED, ""


def _last_step(run: Run, epoch: float) -> int:
    epochs = run.epochs
    return int(epochs.loc[epochs["epoch"] == epoch, "step"].iloc[0])


def _read(run: Run, bounds: ValidationBounds) -> list[Answer]:
    return [overfitting_answer(run, bounds.overfitting)]


OVERFITTING = Condition(
    key="overfitting",
    hypothesis="The training[ of {}] overfits: its validation loss rises.",
    holds="the training overfits",
    fails="the training does not overfit",
    unknown="it cannot be told whether the training overfits",
    contradicted_by=(
        "A validation loss that ends near its least, or a training loss that rises too."
    ),
    next_step=(
        "Keep the weights of the best epoch; then try more data or augmentation, weight decay or "
        "dropout, or a smaller network."
    ),
    to_ask="Give both losses of each epoch: tracer.end_epoch(train_loss=..., val_loss=...).",
    source="Prechelt 1998, Early stopping - but when? (generalization loss)",
    read=_read,
    bound="overfitting",
    needed=False,
    method=(
        "Overfitting: the validation loss at the end over the least one, and Kendall's rank "
        "correlation of it with time after the best epoch."
    ),
    only_if_present=True,
)
