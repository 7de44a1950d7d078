"""Updates that weights of few bits cannot hold, and gradients too small for float16."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.updates import of_an_optimizer, weight_updates
from analyses.health.readings import (
    Reading,
    is_beyond,
    since_beyond,
    verdict_of,
    window_medians,
)
from analyses.reading.layer_gradients import pivot_by_step
from analyses.result import Verdict
from analyses.wording.numbers import number, percent
from gradflow.runs.reading.run import Run

_COARSE = 2.0**-12  # resolution of float16 is 2^-10, of bfloat16 2^-7, of float32 2^-23
SMALLEST_NORMAL = 2.0**-14  # of float16; smaller numbers lose their bits one by one
SMALLEST = 2.0**-24  # of float16
_ROLES = ("linear", "convolution", "recurrent", "attention")


@dataclass(frozen=True)
class PrecisionBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        lost: for the update over the distance between neighbouring numbers of the weights' type,
            both relative to the weights. An element moves only if its update is at least a quarter
            to a half of that distance. For normally distributed weights, at 0.01 about one in
            twelve is small enough to move at all.
        underflow: for the largest gradient of a layer's outputs: float16's smallest normal number.
    """

    lost: float = 1e-2
    underflow: float = SMALLEST_NORMAL


def lost_answer(run: Run, lost: float, max_steps: int) -> Answer:
    """Whether most weights are of a type too coarse for their updates.

    Half of the weights, by elements, must lie below `lost`, in the first steps and in the last: in
    the last alone, a learning rate that is lowered looks the same.
    """
    types = run.table("parameter_types")
    if not len(types):
        return NotAsked("lost-to-rounding", "the types of parameters were not recorded")
    types = types.drop_duplicates("parameter", keep="last").set_index("parameter")
    coarse = types[types["resolution"] > _COARSE]
    if coarse.empty:
        reason = "no weight is in float16 or bfloat16"
        return NotAsked("lost-to-rounding", reason, applies=False)
    ratios = _with_gradients(run, of_an_optimizer(run, weight_updates(run)))
    ratios = ratios[[name for name in ratios if name in coarse.index]]
    if ratios.empty:
        return NotAsked("lost-to-rounding", "no update of such a weight was recorded")
    ratios = ratios / coarse.loc[ratios.columns, "resolution"].to_numpy()
    found = {
        str(name): window_medians(ratios[name].dropna().to_numpy(), max_steps) for name in ratios
    }
    sizes = coarse.loc[list(found), "elements"].to_numpy(dtype=float)
    name = _weighted_median([_or_infinite(one.value) for one in found.values()], list(found), sizes)
    one = found[name]
    verdict = verdict_of(one, lost, above=False)
    was_early = is_beyond(one.early_value, lost, above=False)
    note = ""
    if verdict is Verdict.SUPPORTED and not was_early:
        verdict = Verdict.INCONCLUSIVE
        note = (
            f"It was {number(one.early_value or 0)} in the first steps: a learning rate that is "
            "lowered, or a minimum that is reached, looks like this too."
        )
    below = [is_beyond(each.value, lost, above=False) for each in found.values()]
    share = float(sizes[below].sum() / sizes.sum())
    kind = str(coarse.loc[name, "type"])
    resolution = float(coarse.loc[name, "resolution"])
    rate = run.parameters.loc[run.parameters["parameter"] == name, "learning_rate"].median()
    at = f" at a learning rate of {number(float(rate))}" if np.isfinite(rate) else ""
    return Reading(
        "lost-to-rounding",
        verdict,
        f"update over the distance between neighbouring numbers of {kind}",
        name.removesuffix(".weight"),
        one.value,
        one.low,
        one.high,
        one.early_value,
        was_early,
        lost,
        f"below {number(lost)} for half of the weights, from the first to the last steps",
        one.method,
        note,
        cause=f"{kind} holds {round(-np.log2(resolution)) + 1} bits of a number: a change of a "
        f"weight by less than about 1/{round(4 / resolution)} of it rounds to nothing. The updates"
        f"{at} are {number(float(one.value or 0) * resolution)} of the weights, so "
        f"{percent(share)} of these hardly move.",
        since=since_beyond(ratios[name], lost, above=False),
    )


def _or_infinite(value: float | None) -> float:
    return np.inf if value is None else value


def _with_gradients(run: Run, ratios: pd.DataFrame) -> pd.DataFrame:
    """The ratios of the steps in which the weight had a gradient other than 0."""
    gradients = pivot_by_step(run.parameters, "gradient_norm", ratios.columns, key="parameter")
    gradients = gradients.reindex(index=ratios.index, columns=ratios.columns)
    return ratios.where(gradients > 0).dropna(axis=1, how="all")


def _weighted_median(values: list[float], names: list[str], sizes: np.ndarray) -> str:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(sizes[order]) >= sizes.sum() / 2
    return names[int(order[reached.argmax()])]


def underflow_answer(run: Run, underflow: float, max_steps: int) -> Answer:
    """Whether the gradients of a layer are too small for float16; not asked without that type.

    The largest element of the gradient of each layer's output, times the scale of the loss, is
    compared with `underflow`. Below it all elements have lost bits, or are 0. A gradient of exactly
    0 counts if that of a layer behind is nearly as small.
    """
    tensors, types = run.table("model_tensors"), run.table("parameter_types")
    kinds = {*tensors["autocast"].dropna(), *tensors["type"].dropna(), *types["type"].dropna()}
    if not kinds:
        return NotAsked("underflow", "the types of numbers were not recorded")
    if "float16" not in kinds:
        return NotAsked("underflow", "nothing was computed in float16", applies=False)
    layers = run.layers.loc[run.layers["role"].isin(_ROLES), "layer"]
    largest = pivot_by_step(run.gradients, "abs_max", layers)
    if largest.empty:
        return NotAsked("underflow", "no gradient of a layer's output was recorded")
    scales = run.steps.set_index("step")["scale"].astype(float).fillna(1.0)
    steps = largest.index.get_level_values("step")
    scaled = largest.mul(scales.reindex(steps).fillna(1.0).to_numpy(), axis=0)
    smallest = scaled.where(scaled > 0).min(axis=1)
    scaled = scaled.where((scaled > 0) | scaled.isna(), np.nan)
    vanished = (largest == 0) & (smallest.to_numpy()[:, None] < 16 * underflow)
    scaled = scaled.mask(vanished, 0.0).dropna(axis=1, how="all")
    if scaled.empty:
        return NotAsked("underflow", "every recorded gradient is exactly 0")
    found = {
        str(name): window_medians(scaled[name].dropna().to_numpy(), max_steps) for name in scaled
    }
    layer = min(found, key=lambda key: _or_infinite(found[key].value))
    one = found[layer]
    ill = [
        key
        for key, each in found.items()
        if verdict_of(each, underflow, above=False) is Verdict.SUPPORTED
    ]
    has_scaler = bool(run.steps["scale"].notna().any())
    return Reading(
        "underflow",
        verdict_of(one, underflow, above=False),
        "largest gradient, as float16 holds it, of a layer's outputs",
        layer,
        one.value,
        one.low,
        one.high,
        one.early_value,
        is_beyond(one.early_value, underflow, above=False),
        underflow,
        f"below {number(underflow)}, the smallest number that float16 holds with all its bits",
        one.method,
        cause=f"So it is in {len(ill)} of {len(found)} layers, with float16 "
        + ("and the loss scaled too little." if has_scaler else "and no scale of the loss."),
        otherwise="In a training that has converged, gradients are small for that: see whether the "
        "loss has fallen."
        if ill
        else "",
        since=since_beyond(scaled[layer], underflow, above=False),
    )


def _read_lost(run: Run, bounds: PrecisionBounds) -> list[Answer]:
    return [lost_answer(run, bounds.lost, bounds.last_steps)]


def _read_underflow(run: Run, bounds: PrecisionBounds) -> list[Answer]:
    return [underflow_answer(run, bounds.underflow, bounds.last_steps)]


LOST_TO_ROUNDING = Condition(
    key="lost-to-rounding",
    hypothesis="Most updates[ of {}] are smaller than the weights' type can hold.",
    holds="most updates are smaller than the weights' type can hold",
    fails="the weights' type can hold the updates",
    unknown="it cannot be told whether the weights' type can hold the updates",
    contradicted_by="An update, beside the distance of neighbouring numbers, whose interval lies "
    "above the bound.",
    next_step="Keep the weights in float32 and compute under autocast, or keep a float32 copy that "
    "the optimizer updates, or round stochastically.",
    to_ask="Give the tracer the optimizer: Tracer(model, folder, optimizer=optimizer).",
    source=(
        "Micikevicius et al. 2018, Mixed precision training, section 3.1; Zamirai et al. 2021, "
        "Revisiting BFloat16 training"
    ),
    needed=False,
    leads_to=("stalled", "not-learning"),
    read=_read_lost,
    bound="lost",
    only_if_present=True,
)

UNDERFLOW = Condition(
    key="underflow",
    hypothesis="Gradients[ of {}] are too small for float16.",
    holds="gradients are too small for float16",
    fails="float16 can hold the gradients",
    unknown="it cannot be told whether float16 can hold the gradients",
    contradicted_by="A largest gradient in every layer whose interval lies above the bound.",
    next_step="Scale the loss with torch.amp.GradScaler, or compute in bfloat16.",
    source="Micikevicius et al. 2018, Mixed precision training, section 3.2 (loss scaling)",
    needed=False,
    leads_to=("vanishing", "stalled", "not-learning"),
    read=_read_underflow,
    bound="underflow",
    only_if_present=True,
)
