"""Clipped gradients, stalled weights and noisy gradients of one run."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.reach import parameter_extremes
from analyses.health.readings import (
    MIN_WINDOW,
    Reading,
    WindowMedians,
    held_since,
    is_beyond,
    since_beyond,
    verdict_of,
    window_medians,
    window_size,
)
from analyses.reading.layer_gradients import pivot_by_step
from analyses.reading.once import once_per_run
from analyses.reading.options import turns_of_updates
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.wording.numbers import number
from analyses.wording.phrases import listing, plural
from gradflow.conditions import bounds
from gradflow.conditions.bounds import MOVING, RISING
from gradflow.runs.format.update_tables import NO_OPTIMIZER
from gradflow.runs.reading.run import Run

_HALF_PRECISION = ("bfloat16", "float16")
_USUAL_RATE = 1e-3


@dataclass(frozen=True)
class UpdateBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        clipped: for the factor that clipping multiplies the gradient with.
        stalled: for the update-to-weight ratio: a thousandth of the rule of thumb for health.
    """

    clipped: float = bounds.CLIPPED
    stalled: float = bounds.STALLED


@once_per_run
def weight_updates(run: Run) -> pd.DataFrame:
    """Update-to-weight ratio of each layer's weight, one row a step, one column a parameter.

    Biases and the parameters of normalization layers are left out: they start at zero or have no
    gradient by construction. Frozen parameters are not recorded. Missing where the weight had no
    turn: it got no gradient in that step, as an expert that was not chosen, or its optimizer did
    not step while another one did, as that of a generator while the discriminator is trained.
    """
    layers = run.layers[run.layers["parameters"] > 0]
    is_norm = (layers["role"] == "normalization") | layers["type"].str.contains("Norm")
    layers = layers[~is_norm]
    names = (layers["layer"] + ".weight").drop_duplicates()
    asked = (run.parameters["weight_norm"] > 0) & _had_a_turn(run)
    frame = run.parameters[["epoch", "step", "parameter", "update_to_weight"]][asked]
    ratios = pivot_by_step(frame, "update_to_weight", names, key="parameter")
    return ratios.dropna(axis=1, how="all")


def of_an_optimizer(run: Run, ratios: pd.DataFrame) -> pd.DataFrame:
    """The columns of weights that some optimizer has: of others, `not-updated` tells."""
    optimizers = parameter_extremes(run)["optimizer"].reindex(ratios.columns)
    return ratios.loc[:, (optimizers != NO_OPTIMIZER).to_numpy()]


@once_per_run
def whole_updates(run: Run) -> pd.Series:
    """Norm of the update of all weights together over the norm of these, by step.

    A weight that starts at 0, as one of a low-rank adapter, makes no large ratio here. If updates
    are measured in turns, the squares of those whose turn it was stand for as many as there are
    turns, which have about the same size in bytes: an estimate. If everything of a parameter has
    turns, the weights whose turn it was not have the norm that was last known, or known first.
    """
    names = weight_updates(run).columns
    rows = run.parameters[run.parameters["parameter"].isin(names)]
    turns = turns_of_updates(run)
    if turns == 1:
        rows = rows[rows["update_norm"].notna()]
    squares = rows[["update_norm", "weight_norm"]].astype(float) ** 2
    totals = squares.groupby(rows["step"]).sum(min_count=1)
    weights = totals["weight_norm"]
    if turns > 1 and "parameters_every" in run.description:
        norms = squares["weight_norm"].groupby([rows["step"], rows["parameter"]]).last()
        weights = norms.unstack().ffill().bfill().sum(axis=1)
    return np.sqrt(totals["update_norm"] * turns / weights.where(weights > 0))


def _had_a_turn(run: Run) -> pd.Series:
    """Whether a row of the table `parameters` is of a parameter that was to be updated."""
    rows = run.parameters
    if not (rows["update_norm"] == 0).any():  # nothing ever waited
        return rows["gradient_norm"].notna() | (rows["update_norm"] > 0)
    largest = rows["update_norm"].groupby([rows["epoch"], rows["step"], rows["optimizer"]])
    still = (largest.transform("max") == 0) & (rows["optimizer"] != NO_OPTIMIZER)
    elsewhere = rows["update_norm"].groupby([rows["epoch"], rows["step"]]).transform("max") > 0
    owner = rows["optimizer"]
    if turns_of_updates(run) > 1:
        # Whether the update of another one was not 0 is unknown where none had its turn.
        known = rows["optimizer"].where(rows["update_norm"].notna())
        among = known.groupby([rows["epoch"], rows["step"]]).transform("nunique")
        elsewhere |= (among == 1) & (rows["optimizer"].nunique() > 1)
        # Those of an optimizer whose turn it was may never move.
        owner = rows["parameter"]
    moved_at_all = rows["update_norm"].groupby(owner).transform("max") > 0
    waits = still & elsewhere & moved_at_all
    # Weights may move without a gradient, by weight decay or by hand: these rows are kept.
    return ~waits & (rows["gradient_norm"].notna() | (rows["update_norm"] > 0))


def stalled_answer(run: Run, stalled: float, max_steps: int, clipped: float = 0.0) -> Answer:
    """Whether the weights of a layer hardly move; not asked if updates were not recorded.

    The smallest ratio of a layer is compared with `stalled`. If a layer's updates are exactly zero
    while other layers move, it counts as left out of training on purpose. Two cases leave the
    verdict open: a ratio that grows so fast that it would pass the bound in as many further steps
    (a warm-up), and a ratio that fell below the bound only at the end (the end of a learning-rate
    schedule, or a minimum that was reached). If updates are measured in turns, and of a layer too
    few, it is enough for the answer no that all of them, of all layers, lie above the bound.
    """
    ratios = weight_updates(run)
    if ratios.empty:
        return NotAsked("stalled", "no update of a weight was recorded")
    ratios = of_an_optimizer(run, ratios)
    if ratios.empty:
        return NotAsked("stalled", "no optimizer has a layer's weight")
    moving = ratios.loc[:, (ratios > 0).any().to_numpy()]
    chosen = moving if len(moving.columns) else ratios
    found = {
        str(name): window_medians(chosen[name].dropna().to_numpy(), max_steps)
        for name in chosen.columns
    }
    layer = min(found, key=lambda name: _value(found[name]))
    one = found[layer]
    verdict, method = verdict_of(one, stalled, above=False), one.method
    if one.low is None and _all_above(run, chosen, stalled):
        verdict, method = Verdict.CONTRADICTED, f"{method}: {_TURNS}"
    was_early = is_beyond(one.early_value, stalled, above=False)
    slow = is_beyond(one.value, stalled, above=False)
    cause = why_stalled(run, layer, stalled, clipped, max_steps) if slow else ""
    note = _still(run, ratios.columns.difference(moving.columns), others=len(moving.columns) > 0)
    rises = _rises(one, stalled, _growth_of_rate(run, max_steps))
    if verdict is Verdict.SUPPORTED and (not was_early or rises):
        verdict = Verdict.INCONCLUSIVE
        note = (
            f"The ratio still rises (it was {number(one.early_value or 0)}), as in a warm-up."
            if rises
            else f"It was {number(one.early_value or 0)} in the first steps: {_late(run, layer)}"
        )
    return Reading(
        "stalled",
        verdict,
        "smallest update-to-weight ratio of a layer's weight",
        layer.removesuffix(".weight"),
        one.value,
        one.low,
        one.high,
        one.early_value,
        was_early and not rises,
        stalled,
        f"below {number(stalled)} throughout (rule of thumb for health: about 0.001, CS231n)",
        method,
        note,
        cause=cause,
        since=since_beyond(chosen[layer], stalled, above=False),
    )


_TURNS = "updates are measured in turns, and all of them, of every weight, lie above the bound"


def _all_above(run: Run, ratios: pd.DataFrame, bound: float) -> bool:
    """Whether updates have turns, every weight has had one, and no ratio lies below `bound`.

    A weight that hardly moves throughout shows in its first turn; one that stops to move while it
    has no turn would, in a recording of every step, leave the verdict open.
    """
    if turns_of_updates(run) == 1 or len(ratios) < max(MIN_WINDOW, turns_of_updates(run)):
        return False
    values = ratios.to_numpy()
    return bool((values[np.isfinite(values)] >= bound).all())


def clipped_answer(run: Run, clipped: float, max_steps: int) -> Answer:
    """Whether clipping leaves next to nothing of the gradient; not asked if that was not recorded.

    The norm of the whole gradient as the optimizer receives it, over that which the backward pass
    left, is compared with `clipped`. The verdict is open if weights move as usual all the same.
    """
    factors = run.steps["clipping_factor"].to_numpy(dtype=float)
    # Of a norm that overflows, clipping leaves 0: what made it overflow is ill, not the clipping.
    before = run.steps["backward_gradient_norm"].to_numpy(dtype=float)
    factors = np.where(before > LARGEST_NORM, np.nan, factors)
    if not np.isfinite(factors).any():
        return NotAsked("clipped", "no gradient norm was recorded before and after clipping")
    one = window_medians(factors, max_steps)
    last = factors[-window_size(len(factors), max_steps) :]
    verdict, note = verdict_of(one, clipped, above=False), ""
    moves = _usual_move(run, max_steps) if verdict is Verdict.SUPPORTED else 0.0
    # Clipping scales a gradient: of one that is not 0 it leaves something.
    zeroed = verdict is Verdict.SUPPORTED and bool((last[np.isfinite(last)] == 0).all())
    if moves > MOVING and not zeroed:
        verdict = Verdict.INCONCLUSIVE
        note = (
            f"Yet weights move by {number(moves)} of their norm in a step: Adam divides a common "
            "factor out again, and a large learning rate makes up for it. The scale of a loss "
            "looks like this too."
        )
    return Reading(
        "clipped",
        verdict,
        "norm of the whole gradient after clipping over that before",
        "",
        one.value,
        one.low,
        one.high,
        one.early_value,
        is_beyond(one.early_value, clipped, above=False),
        clipped,
        f"below {number(clipped)}",
        one.method,
        note,
        since=since_beyond(_by_step(run, factors), clipped, above=False),
        cause=_ZEROED
        if zeroed
        else f"It is below 1 in {int((last < 1).sum())} of the last {len(last)} recorded steps.",
        next_step=_ZEROED_STEP
        if zeroed
        else "If a GradScaler scales the loss, give it to the tracer as scaler=. If the "
        "gradients are clipped, raise the bound and compare."
        if note
        else "",
    )


LARGEST_NORM = 1e18  # squares of larger numbers overflow in float32
_ZEROED = (
    "Nothing at all is left of it: zero_grad(), or something else that sets the gradients to 0, "
    "runs between the backward pass and the optimizer's step."
)
_ZEROED_STEP = "Call optimizer.zero_grad() before backward(), or after step(), not between them."


def _by_step(run: Run, values: Array) -> pd.Series:
    return pd.Series(values, index=pd.Index(run.steps["step"], name="step"))


def _usual_move(run: Run, max_steps: int) -> float:
    """By how much of their norm all weights together move in one of the last steps; 0 if unknown.

    A weight that starts at 0 moves by as much of its norm however small the gradient is.
    """
    return window_medians(whole_updates(run).to_numpy(), max_steps).value or 0.0


def why_stalled(run: Run, parameter: str, stalled: float, clipped: float, max_steps: int) -> str:
    """Why the weight `parameter` hardly moves, as a sentence; empty if that is left open.

    In this order: updates that round to nothing in a half-precision type, clipping, the learning
    rate, the gradient. A step of gradient descent moves a weight by rate times gradient; if that
    were enough at a rate of 0.001, the rate is the cause, otherwise the gradient is.
    """
    rows = run.parameters[run.parameters["parameter"] == parameter].iloc[-max_steps:]
    gradient, weight, update, rate = (
        float(rows[name].median())
        for name in ("gradient_norm", "weight_norm", "update_norm", "learning_rate")
    )
    kinds = run.description.get("parameter_types")
    half = [kind for kind in _HALF_PRECISION if isinstance(kinds, dict) and kind in kinds]
    if update == 0 and gradient > 0 and rate > 0 and half:
        return (
            f"The updates are exactly 0 at a learning rate of {number(rate)}: they are smaller "
            f"than {listing(half)} can hold beside the weights. Keep the weights in float32, or "
            "raise the learning rate."
        )
    factor = window_medians(run.steps["clipping_factor"].to_numpy(dtype=float), max_steps).value
    if factor is not None and factor < clipped:
        said = f"Clipping multiplies the gradient with {number(factor)}"
        return f"{said}: raise the bound of the clipping."
    if not rate > 0 or not weight > 0 or np.isnan(gradient):
        return ""
    if gradient / weight * _USUAL_RATE > stalled:
        return (
            f"The learning rate of {number(rate)} is the cause: the gradient is "
            f"{number(gradient / weight)} of the weights. Raise the learning rate."
        )
    return (
        f"The gradient is the cause: it is {number(gradient / weight)} of the weights, at a "
        f"learning rate of {number(rate)}."
    )


def _late(run: Run, parameter: str) -> str:
    """What may have made the updates of `parameter` small that were not small at first."""
    rows = run.parameters[run.parameters["parameter"] == parameter]
    rates = rows.drop_duplicates("step", keep="last").set_index("step")["learning_rate"].dropna()
    since = held_since((rates == 0).to_numpy(), rates.index.to_numpy())
    if since is not None:
        return f"from step {since} on the learning rate is 0. See whether its schedule ends there."
    return "a learning rate that is lowered, or a minimum that is reached, looks like this too."


def _rises(one: WindowMedians, bound: float, of_rate: float) -> bool:
    """Whether the ratio grows, and would pass `bound` if it grew by the same factor again.

    A ratio that starts at exactly zero grows as the learning rate does, by the factor `of_rate`:
    it may also be zero because the updates are rounded away.
    """
    if one.value is None or one.early_value is None:
        return False
    growth = one.value / one.early_value if one.early_value > 0 else of_rate
    return one.value > 0 and growth > RISING and one.value * growth > bound


def _growth_of_rate(run: Run, max_steps: int) -> float:
    """Largest learning rate of a step, in the last steps over that in the first ones."""
    rates = run.parameters.groupby("step")["learning_rate"].max().dropna().to_numpy(dtype=float)
    found = window_medians(rates, max_steps)
    if found.value is None or found.early_value is None:
        return 1.0
    return found.value / found.early_value if found.early_value > 0 else np.inf


def _value(one: WindowMedians) -> float:
    return np.inf if one.value is None else one.value


def _still(run: Run, names: pd.Index, *, others: bool) -> str:
    """Why the parameters `names` never moved; `others` says whether other weights did."""
    extremes = parameter_extremes(run).reindex(names)
    told = (extremes["optimizer"] == NO_OPTIMIZER) | (extremes["rate"] == 0)  # by `not-updated`
    gradients = extremes["gradient"]
    left_out, unreached = int(((gradients > 0) & ~told).sum()), int((gradients == 0).sum())
    said = []
    if left_out and others:
        count = plural(left_out, "weight")
        said.append(
            f"{count} had a gradient but never moved while others did. Not counted: they may be "
            "left out of training on purpose."
        )
    if unreached:
        count = plural(unreached, "weight")
        said.append(
            f"{count} had a gradient of exactly zero throughout: no gradient reaches them, "
            "whatever the learning rate."
        )
    return " ".join(said)


def _read_clipped(run: Run, bounds: UpdateBounds) -> list[Answer]:
    return [clipped_answer(run, bounds.clipped, bounds.last_steps)]


def _read_stalled(run: Run, bounds: UpdateBounds) -> list[Answer]:
    return [stalled_answer(run, bounds.stalled, bounds.last_steps, bounds.clipped)]


CLIPPED = Condition(
    key="clipped",
    hypothesis="The gradients[ of {}] are clipped to next to nothing in every step.",
    holds="the gradients are clipped to next to nothing",
    fails="the gradients are not clipped to next to nothing",
    unknown="it cannot be told whether the gradients are clipped to next to nothing",
    contradicted_by="A factor whose interval lies above the bound.",
    next_step="Raise the bound of the clipping to about the usual norm of the gradient.",
    to_ask="Give the tracer the optimizer: Tracer(model, folder, optimizer=optimizer).",
    source=(
        "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks, "
        "section 3.2"
    ),
    needed=False,  # clipping that does harm shows in the updates too
    leads_to=("stalled", "not-learning"),
    read=_read_clipped,
    bound="clipped",
    only_if_present=True,
)

STALLED = Condition(
    key="stalled",
    hypothesis="The training[ of {}] is stalled.",
    holds="training is stalled",
    fails="training is not stalled",
    unknown="it cannot be told whether training is stalled",
    contradicted_by="An update-to-weight ratio whose interval lies above the bound in every layer.",
    next_step=(
        "Raise the learning rate, and see whether the layer's gradient is too small to move it."
    ),
    to_ask="Give the tracer the optimizer: Tracer(model, folder, optimizer=optimizer).",
    source="CS231n, Stanford, Neural networks 3 (ratio of updates to weights)",
    leads_to=("not-learning",),
    read=_read_stalled,
    bound="stalled",
)
