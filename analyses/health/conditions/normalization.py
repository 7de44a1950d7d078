"""Whether batch norms have the statistics that evaluation and training need.

Axis letters: E recorded epochs, B batch norms.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import Reading, held_since
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import listing, plural
from gradflow.runs.reading.run import Run

# The 97.5 % points of a squared and of an absolute standard normal number.
_SQUARED, _NORMAL = 5.02, 1.96
# Until then also those of the usual momentum, 0.1, still have some of their start in them.
MIN_PASSES = 30
# Below this the accuracy of small networks on the digits hardly changed.
_HARMLESS = 0.1
# An average over 1 / momentum passes has forgotten its start after three times as many.
_PASSES_TO_SETTLE = 3.0
_MOMENTA = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
_SHIFTS = {"mean_shift": "mean", "variance_shift": "variance"}


@dataclass(frozen=True)
class NormalizationBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        stale: for the distance of a layer's running statistics from those of its last batches,
            beyond what the choice of batches makes: of the means, in standard deviations, or of the
            variances, in natural logarithms of their ratio.
    """

    stale: float = 0.5


def stale_answer(run: Run, stale: float) -> Answer:
    """Whether the running statistics of some batch norm are not those of the present network.

    The distance, squared, is that of the lag and that of chance; the latter is expected to be that
    of the batches' scatter, and is taken off. The interval takes chance to be one normal number a
    layer, which is wider than its many channels make it.
    """
    rows = run.table("running_statistics")
    if not len(rows):
        return _not_asked(run)
    rows = rows[rows["batches"] > 0]
    if not len(rows):
        return NotAsked("stale-statistics", "no batch norm ran in training mode in a recorded step")
    passes = int(rows["passes"].max())
    if passes < MIN_PASSES:
        reason = f"the batch norms have seen {plural(passes, 'pass')}, and {MIN_PASSES} are needed"
        return NotAsked("stale-statistics", reason)
    by_epoch = {int(epoch): _worst(part) for epoch, part in rows.groupby("epoch")}
    last, first = by_epoch[max(by_epoch)], by_epoch[min(by_epoch)]
    verdict = verdict_above(last.low, last.high, stale)
    at_end = rows[rows["epoch"] == max(by_epoch)]
    beyond = int((_lags(at_end).max(axis=1) > stale).sum())
    ill = verdict is Verdict.SUPPORTED
    return Reading(
        "stale-statistics",
        verdict,
        f"distance of the running {last.of_what} from that of the last batches",
        last.layer,
        last.value,
        last.low,
        last.high,
        first.value,
        first.value > stale,
        stale,
        f"above {number(stale)}",
        f"at the last epoch's end, against {plural(last.batches, 'recorded step')}; the "
        "part that their scatter makes is taken off, and makes the interval",
        note=_note(run, verdict, last.value),
        said=(
            f"the running {last.of_what} of {last.layer} lies {last.words} from that of its last "
            f"batches, and {beyond} of {plural(len(at_end), 'batch norm')} lie beyond "
            f"{number(stale)}"
            if ill
            else ""
        ),
        cause=_cause(last.row, last.quantity, last.value) if ill else "",
        since=_since(run, by_epoch, stale) if ill else None,
    )


@dataclass(frozen=True)
class _Worst:
    """The layer that lags most at the end of an epoch, and by how much."""

    row: "pd.Series[float]"
    quantity: str
    value: float
    low: float | None
    high: float | None

    @property
    def layer(self) -> str:
        return str(self.row["layer"])

    @property
    def of_what(self) -> str:
        return _SHIFTS[self.quantity]

    @property
    def batches(self) -> int:
        return int(self.row["batches"])

    @property
    def words(self) -> str:
        if self.quantity == "mean_shift":
            return f"{number(self.value)} standard deviations"
        return f"a factor of {number(float(np.exp(self.value)))}"


def _lags(rows: pd.DataFrame) -> Array:
    """What is left of each shift once chance is taken off: [B, 2]."""
    shifts = rows[list(_SHIFTS)].to_numpy(dtype=float)
    chance = rows[[f"expected_{name}" for name in _SHIFTS]].to_numpy(dtype=float)
    squares: Array = shifts**2 - np.nan_to_num(chance) ** 2
    return np.asarray(np.sqrt(np.clip(squares, 0, None)))


def _worst(rows: pd.DataFrame) -> _Worst:
    lags = np.nan_to_num(_lags(rows))
    place, which = np.unravel_index(int(lags.argmax()), lags.shape)
    row, quantity = rows.iloc[int(place)], list(_SHIFTS)[int(which)]
    shift, chance = float(row[quantity]), float(row[f"expected_{quantity}"])
    if not np.isfinite(chance):
        return _Worst(row, quantity, float(lags[place, which]), None, None)
    low = float(np.sqrt(max(shift**2 - _SQUARED * chance**2, 0)))
    return _Worst(row, quantity, float(lags[place, which]), low, shift + _NORMAL * chance)


def _cause(row: "pd.Series[float]", quantity: str, lag: float) -> str:
    """Why the statistics lag: they are young, or the weights move faster than they follow."""
    momentum, passes = float(row["momentum"]), int(row["passes"])
    if not np.isfinite(momentum):
        return (
            f"They are a plain average over all {passes} passes (momentum=None), so the first "
            "weights count as much as the present ones."
        )
    if passes < _PASSES_TO_SETTLE / momentum:
        return (
            f"They have seen {plural(passes, 'pass')}, and with a momentum of "
            f"{number(momentum)} they average over {number(1 / momentum)}: "
            f"{percent((1 - momentum) ** passes)} of their start is still in them."
        )
    better, rest = _better_momentum(row, quantity, lag)
    cause = (
        f"With a momentum of {number(momentum)} they average over the last "
        f"{number(1 / momentum)} passes, and the weights have moved within these."
    )
    if better is None:
        return cause
    return (
        f"{cause} A momentum of {number(better)} would leave about {number(rest)}, if the weights "
        "went on to move as fast."
    )


def _better_momentum(
    row: "pd.Series[float]", quantity: str, lag: float
) -> tuple[float | None, float]:
    """The momentum with the least distance, and that distance; None if it is the present one.

    Statistics that move by d a pass lag by d (1 - a) / a, and scatter by s sqrt(a / (2 - a)), where
    s is the scatter of the batches: the mean and variance of an exponential average.
    """
    momentum = float(row["momentum"])
    scatter = float(row[quantity.replace("shift", "scatter")])
    if not (0 < momentum < 1 and np.isfinite(scatter)):
        return None, lag
    speed = lag * momentum / (1 - momentum)

    def left(a: float) -> float:
        return float(np.hypot(speed * (1 - a) / a, scatter * np.sqrt(a / (2 - a))))

    best = min(_MOMENTA, key=left)
    return (best, left(best)) if left(best) < 0.5 * lag else (None, lag)


def _note(run: Run, verdict: Verdict, lag: float) -> str:
    """What they cost, where the run says so, or that it is not known."""
    cost = _cost(run)
    if verdict is Verdict.SUPPORTED or cost or lag < _HARMLESS:
        return cost
    return (
        "A distance below the bound can still cost some accuracy: gradflow.evaluate_both measures "
        "how much."
    )


def _cost(run: Run) -> str:
    epochs = run.epochs
    names = ("val_accuracy", "recalibrated_val_accuracy")
    if not len(epochs) or not set(names) <= set(epochs):
        return ""
    measured, again = (float(epochs[name].iloc[-1]) for name in names)
    if not np.isfinite([measured, again]).all():
        return ""
    return (
        f"At the last epoch's end the validation accuracy is {percent(measured)} with them and "
        f"{percent(again)} with re-estimated ones."
    )


def _since(run: Run, by_epoch: dict[int, _Worst], stale: float) -> int | None:
    """The last step of the first epoch from which on the statistics were stale."""
    ends = dict(zip(run.epochs["epoch"], run.epochs["step"], strict=True))
    epochs = sorted(set(by_epoch) & set(ends))
    ill = np.array([by_epoch[epoch].value > stale for epoch in epochs], dtype=bool)
    return held_since(ill, np.array([float(ends[epoch]) for epoch in epochs]))


def _not_asked(run: Run) -> NotAsked:
    if not run.layers["type"].str.contains("BatchNorm").any():
        return NotAsked("stale-statistics", "no layer is a batch norm", applies=False)
    return NotAsked("stale-statistics", "no running statistics of a batch norm were recorded")


def frozen_answer(run: Run) -> Answer:
    """Whether what acts in training mode alone runs in evaluation mode while weights are updated.

    Ill is a batch norm that runs in evaluation mode with the statistics of a new layer, mean 0 and
    variance 1: it normalizes nothing. So is a model that is in evaluation mode as a whole, so that
    its layers are not recorded. A batch norm with statistics of its own, or a model whose layers
    are recorded in evaluation mode since the tracer was asked to, is frozen on purpose.
    """
    by_mode = _model_in_evaluation(run)
    if by_mode is not None:
        return by_mode
    rows = run.table("running_statistics")
    frozen = rows[rows["mode"] == "evaluation"] if len(rows) else rows
    if len(frozen):
        at_end = frozen[frozen["epoch"] == rows["epoch"].max()]
        new = at_end[at_end["is_new"].astype(bool)]
        return _frozen_reading(run, new, at_end)
    if len(rows) or len(run.layers):
        applies = bool(len(rows) or run.description.get("acts_in_training"))
        if applies:
            return _frozen_reading(run, rows.iloc[:0], rows.iloc[:0])
        reason = "no layer acts otherwise in training than in evaluation"
        return NotAsked("frozen-statistics", reason, applies=False)
    return NotAsked("frozen-statistics", "no layer was recorded")


def _model_in_evaluation(run: Run) -> Reading | None:
    """The reading of a model whose last steps were in evaluation mode and not recorded for it."""
    steps = run.steps
    acts = run.description.get("acts_in_training") or {}
    if "mode" not in steps or not acts or not (steps["mode"] == "evaluation").any():
        return None
    recorded = run.activations["step"].unique()
    ill = ((steps["mode"] == "evaluation") & ~steps["step"].isin(recorded)).to_numpy(dtype=bool)
    since = held_since(ill, steps["step"].to_numpy(dtype=float))
    if since is None:
        return None
    held = steps.loc[steps["step"] >= since]
    what = listing([plural(count, name) for name, count in acts.items()])
    begins = "from the first step on" if since == int(steps["step"].iloc[0]) else "since then"
    return Reading(
        "frozen-statistics",
        Verdict.SUPPORTED,
        "recorded steps in which the model is in evaluation mode",
        "",
        float(len(held)),
        float(len(held)),
        float(len(held)),
        None,
        bool(ill[0]),
        0.0,
        "above 0",
        "counted over all recorded steps, up to the last one",
        said=(
            f"the model is in evaluation mode in the last {plural(len(held), 'recorded step')}, "
            "and its weights are updated"
        ),
        cause=(
            f"model.eval() was called and model.train() was not, {begins}: {what} do not act, and "
            "no layer is recorded."
        ),
        since=since,
    )


def _frozen_reading(run: Run, new: pd.DataFrame, frozen: pd.DataFrame) -> Reading:
    ill = len(new) > 0
    first = str(new["layer"].iloc[0]) if ill else ""
    said = f"{plural(len(new), 'batch norm')} in evaluation mode, with mean 0 and variance 1"
    kept = (
        f"{plural(len(frozen), 'batch norm')} in evaluation mode, with statistics of their own: "
        "frozen on purpose, as it seems."
    )
    return Reading(
        "frozen-statistics",
        Verdict.SUPPORTED if ill else Verdict.CONTRADICTED,
        "number of batch norms in evaluation mode with the statistics of a new layer",
        first,
        float(len(new)),
        None,
        None,
        None,
        ill,
        0.0,
        "above 0",
        "counted at the last epoch's end",
        note="" if ill or not len(frozen) else kept,
        said=f"{said}, the first of them {first}" if ill else "",
        cause=(
            "They were put in evaluation mode before any batch was seen, so they normalize nothing."
            if ill
            else ""
        ),
    )


def _read(run: Run, bounds: NormalizationBounds) -> list[Answer]:
    return [frozen_answer(run), stale_answer(run, bounds.stale)]


FROZEN_STATISTICS = Condition(
    key="frozen-statistics",
    hypothesis="Layers[ of {}] run in evaluation mode that training needs in training mode.",
    holds="layers that training needs in training mode run in evaluation mode",
    fails="no layer that training needs in training mode runs in evaluation mode",
    unknown="it cannot be told whether layers run in the mode that training needs",
    contradicted_by="Training mode in the recorded steps, or running statistics of their own.",
    next_step=(
        "Call model.train() before each epoch, after the evaluation too; if it is on purpose, give "
        'the tracer modes="all".'
    ),
    source="PyTorch documentation, nn.Module.train and nn.Module.eval",
    read=_read,
    leads_to=("not-learning",),
    only_if_present=True,
)
STALE_STATISTICS = Condition(
    key="stale-statistics",
    hypothesis="The running statistics of some batch norm[ of {}] are stale.",
    holds="the running statistics of some batch norm are stale",
    fails="the running statistics of the batch norms are not stale",
    unknown="it cannot be told whether the running statistics of the batch norms are stale",
    contradicted_by="A distance from the last batches whose interval lies below the bound.",
    next_step=(
        "Re-estimate them before each evaluation, with gradflow.recalibrate(model, batches); "
        "gradflow.evaluate_both(model, batches, validation, metric) says what they cost."
    ),
    to_ask="Record steps in training mode, and call tracer.end_epoch() after each epoch.",
    source='Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, section 3',
    read=_read,
    bound="stale",
    needed=False,
    method=(
        "Stale: the distance of a batch norm's running mean and variance from those of the batches "
        "of the last recorded steps, at most 8, as root mean squares over its channels; what the "
        "scatter of these batches alone would make is taken off."
    ),
    only_if_present=True,
)
