"""A loss that leaves its own history in single steps, and where that began."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.steps import climb_before
from analyses.health.readings import Reading
from analyses.reading.layer_gradients import pivot_by_step
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.wording.numbers import number
from analyses.wording.phrases import plural
from analyses.wording.translatable import Numeral, Said, message
from gradflow.conditions import spikes
from gradflow.runs.reading.run import Run

_BEFORE = 8  # recorded steps before a spike in which a layer may have left its history already
# The tracer may have written only these before it. Four times the median is far without a history.
_FEW = 6
_WORDS = {"loss": message("loss"), "gradient_norm": message("norm of the whole gradient")}
# In the order of a step: table, its names, the quantity, what it is of, and whether it runs back.
_PLACES = (
    ("activations", "layer", "rms", "output", False),
    ("gradients", "layer", "norm", "gradient", True),
    ("parameters", "parameter", "update_norm", "update", False),
)


@dataclass(frozen=True)
class SpikeBounds(Bounds):
    """Bounds of the condition of this module.

    Fields:
        spiking: for the loss above the median of the steps before, in their robust spreads.
    """

    spiking: float = spikes.SPREADS


@dataclass(frozen=True)
class Departure:
    """The first number of a layer that left its own history around a spike.

    Fields:
        step: in which.
        name: the layer or parameter.
        what: output, gradient (of the output) or update.
        value, median: the number there, and the median of those before.
        is_first_output: whether it is the first layer's output, which only the batch has changed.
    """

    step: int
    name: str
    what: str
    value: float
    median: float
    is_first_output: bool


def spiking_answer(run: Run, spiking: float) -> Answer:
    """Whether the loss leaves its own history in some step; not asked of fewer than 21 steps.

    Each loss is compared with the median of the last 32 recorded ones before it, in units of their
    spread, by logarithms; so is the norm of the whole gradient. The loss decides, or the norm if
    the loss is half as far above its own; see `gradflow.conditions.spikes`. Where the norm spikes
    alone, nothing is ill: that is one odd batch among many. Where the loss is below a tenth of that
    of the first steps, only one of 1.5 times the loss of the start counts: a single sample moves it
    by factors.
    """
    steps = run.steps[~run.steps["skipped"].fillna(False).astype(bool)]
    columns = {name: steps[name].to_numpy(dtype=float) for name in spikes.LEAST_FACTOR}
    quantity = "loss" if np.isfinite(columns["loss"]).any() else "gradient_norm"
    known = np.isfinite(columns[quantity])
    numbers = steps["step"].to_numpy()[known]
    columns = {name: column[known] for name, column in columns.items()}
    values = columns[quantity]
    if len(values) <= spikes.LEAST and not len(_told_by_tracer(run)):
        return NotAsked(
            "spiking",
            f"{plural(len(values), 'recorded step')} with a loss or gradient norm: "
            f"{spikes.LEAST + 1} are needed",
        )
    history = spikes.History()
    pairs = ([_known(column[place]) for column in columns.values()] for place in range(len(values)))
    above = np.array([history.look(*pair).score for pair in pairs])
    told = _told_by_tracer(run)
    above = np.fmax(above, np.array([told.get(int(step), np.nan) for step in numbers]))
    if not np.isfinite(above).any():
        return NotAsked("spiking", "no loss or gradient norm has enough recorded before it")
    found = np.flatnonzero(above >= spiking)
    worst = int(found[np.argmax(above[found])]) if len(found) else int(np.nanargmax(above))
    said, cause, note, layer = "", "", "", ""
    if len(found):
        # What has risen all along has no history that one step could leave.
        climb = climb_before(run, int(numbers[found[0]]))
        if climb is not None:
            found, note = found[:0], climb.clause
    if len(found):
        first = int(found[0])
        said = _said(quantity, values, numbers, first, _spikes(found))
        departure = first_departure(run, int(numbers[first]))
        if departure is not None:
            layer, cause = departure.name, _cause(departure, int(numbers[first]))
    return Reading(
        "spiking",
        Verdict.SUPPORTED if len(found) else Verdict.CONTRADICTED,
        Said(
            "largest distance of the {quantity} above the median before, in spreads of those,",
            quantity=Said(_WORDS[quantity]),
        ),
        layer,
        float(min(above[worst], np.finfo(float).max)),
        None,
        None,
        None,
        False,
        spiking,
        f"above {number(spiking)}, and {number(spikes.LEAST_FACTOR[quantity])} times the median",
        f"largest of {int(np.isfinite(above).sum())} recorded steps, each against up to "
        f"{spikes.HISTORY} before it (median and median absolute deviation of logarithms); no "
        "interval: each step is one number",
        note,
        said=said,
        cause=cause,
        since=int(numbers[found[0]]) if len(found) else None,
        tells_when=len(found) > 0,
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _told_by_tracer(run: Run) -> dict[int, float]:
    """Spreads by step of the spikes that the tracer saw, whose history need not be recorded."""
    table = run.table("spikes")
    return dict(zip(table["spike"].tolist(), table["spreads"].tolist(), strict=True))


def first_departure(run: Run, step: int) -> Departure | None:
    """The first layer to leave its own history, in the eight recorded steps up to `step`.

    Of a step the outputs come first, from the input on, then their gradients, from the output on,
    then the updates. None if no layer left its history, or too little of it was recorded.
    """
    best: tuple[int, int] | None = None
    found: Departure | None = None
    for order, (table, key, quantity, what, backward) in enumerate(_PLACES):
        rows: pd.DataFrame = getattr(run, table)
        rows = rows[rows["step"] <= step]
        names = pd.Series(rows[key].dropna().unique(), dtype=object)
        if not len(names):
            continue
        if not backward and table == "activations":
            names = _in_order(names, run)
        elif backward:
            names = _in_order(names, run)[::-1]
        values = pivot_by_step(rows, quantity, names, key=key)
        numbers = values.index.get_level_values("step").to_numpy()
        # The update of the spike's own step comes after it.
        end = len(numbers) - int(what == "update" and numbers[-1] == step)
        for place in range(max(0, len(numbers) - _BEFORE - 1), end):
            if best is not None and (int(numbers[place]), order) >= best:
                break
            gone = _gone(values.to_numpy(dtype=float), place)
            if gone is not None:
                best = int(numbers[place]), order
                column, median = gone
                name = str(names.iloc[column])
                value = float(values.iloc[place, column])
                is_first = order == 0 and column == 0
                found = Departure(int(numbers[place]), name, what, value, median, is_first)
                break
    return found


def _gone(values: Array, place: int) -> tuple[int, float] | None:
    """The first column whose number at `place` has left its history, and its median before."""
    factor = spikes.LEAST_FACTOR["gradient_norm"]
    for column in range(values.shape[1]):
        before, value = values[:place, column], values[place, column]
        if np.isnan(value):
            continue
        if spikes.spreads_above(before, float(value), factor, _FEW) >= spikes.SPREADS:
            known = before[np.isfinite(before)][-spikes.HISTORY :]
            return column, float(np.median(known))
    return None


def _in_order(names: pd.Series, run: Run) -> pd.Series:
    order = {name: place for place, name in enumerate(run.layers["layer"])}
    places = names.map(lambda name: order.get(name, len(order)))
    return names.iloc[np.argsort(places.to_numpy(), kind="stable")].reset_index(drop=True)


def _spikes(found: NDArray[np.intp]) -> int:
    """How many spikes these steps are: neighbours are one."""
    return int((np.diff(found) > 1).sum()) + 1


def _said(quantity: str, values: Array, numbers: Array, first: int, count: int) -> str:
    median = float(np.median(values[max(0, first - spikes.HISTORY) : first]))
    others = Said("; {spikes} in all", spikes=plural(count, "spike")) if count > 1 else ""
    return Said(
        "the {quantity} is {value} in step {step}, and was {median} in the recorded steps "
        "before{others}",
        quantity=Said(_WORDS[quantity]),
        value=number(float(values[first])),
        step=Numeral(f"{int(numbers[first])}"),
        median=number(median),
        others=others,
    )


def _cause(one: Departure, step: int) -> str:
    when = Said("in the same step")
    if one.step != step:
        when = Said("in step {step}", step=Numeral(f"{one.step}"))
    template = {
        "output": message("the output of {name} (root mean square {value}, before {median})"),
        "gradient": message("the gradient at the output of {name} (norm {value}, before {median})"),
        "update": message("the update of {name} (norm {value}, before {median})"),
    }[one.what]
    amounts = {"value": number(one.value), "median": number(one.median)}
    what = Said(template, name=one.name, **amounts)
    return Said(
        "The first to leave its usual range was {what}, {when}: what changed before it is the "
        "batch."
        if one.is_first_output
        else "The first to leave its usual range was {what}, {when}.",
        what=what,
        when=when,
    )


def _read(run: Run, bounds: SpikeBounds) -> list[Answer]:
    return [spiking_answer(run, bounds.spiking)]


SPIKING = Condition(
    key="spiking",
    hypothesis="The loss[ of {}] spikes.",
    holds="the loss spikes",
    fails="the loss does not spike",
    unknown="it cannot be told whether the loss spikes",
    contradicted_by="No recorded loss that far above those before it.",
    next_step=(
        "Look at the batch before the spike, and at the layer that left its usual range first. "
        "Skip such batches, clip the gradients, or lower the learning rate or Adam's second beta. "
        "Tracer(around_spikes=8) records the steps around the next spike."
    ),
    to_ask="Log the loss of each step, of 40 recorded ones at least: tracer.log(loss=loss).",
    source=(
        "Chowdhery et al. 2022, PaLM, section 5.1 (loss spikes); Takase et al. 2023, Spike no more"
    ),
    read=_read,
    bound="spiking",
    method=(
        "Spiking: each recorded loss against the median of up to 32 before it, in units of their "
        "median absolute deviation, both of logarithms."
    ),
    leads_to=("not-learning", "non-finite", "dead"),
    spoils=False,
    needed=False,
    only_if_present=True,
)
