"""Whether gradients vanish or explode on their way back through time in one run.

Only recurrences are asked: layers that run through a sequence by themselves, of which the gradient
that reaches the inputs is known by position, and modules that are called in a loop. Attention
reaches every position in one step. Where the loss reads every position, each gets a gradient of its
own, which hides what comes from further away: such a layer is left out too.

A gradient that vanishes is no fault where what is learnt needs no longer memory: so it is with
gates and default weights, until they learn to keep what they need. It counts if the loss does not
fall much either. So does a gradient that grows by less than HARMLESS: where an early input decides,
and has been learnt, it outweighs the others.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import (
    OVERLOOKED,
    Reading,
    WindowMedians,
    held_since,
    is_beyond,
    verdict_of,
    window_medians,
    window_size,
)
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.wording.numbers import number
from gradflow.runs.reading.run import Run

MIN_POSITIONS = 8  # of a shorter sequence there is no course in time
MIN_BINS = 4
MIN_LOSSES = 40  # fewer steps with a loss do not tell whether it falls
LEARNT = 0.7  # the loss of the last steps over that of the first, if much has been learnt
RECOVERED = 10.0  # times the bound, from which on a gradient that had vanished has come back
HARMLESS = 1e4  # growth over the sequence below which a loss that falls shows that it does no harm
LEAST = 1e-30  # of the largest gradient: below, float32 rounds to zero
SATURATED = 0.9  # root mean square of the states of tanh units that lie at their bounds


@dataclass(frozen=True)
class TimeBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        forgotten: for the gradient norm at the positions that get the least, over that at those
            near to where the loss reads.
        grown: for the gradient norm at the first positions over that at the last.
    """

    forgotten: float = 1e-3
    grown: float = 2e2


@dataclass
class Course:
    """The gradient norm of one layer by position, step by step.

    Fields:
        layer: its name.
        steps: the recorded steps, [steps].
        least: of each step, the largest norm in the eighth of the positions that get the least,
            over the median of the last quarter.
        growth: the median norm of the first quarter of the positions over that of the last tenth.
        profiles: of each step, position and norm over the largest, [2, bins].
        is_flipped: whether the loss reads the first position, and time runs back to the last one.
    """

    layer: str
    steps: Array
    least: Array
    growth: Array
    profiles: list[Array] = field(repr=False)
    is_flipped: bool = False

    @property
    def length(self) -> int:
        """The positions of the last step's sequences."""
        return int(self.profiles[-1][0].max()) + 1


def time_answers(run: Run, forgotten: float, grown: float, max_steps: int) -> list[Answer]:
    """Whether gradients vanish or explode through time in any recurrent layer.

    `forgotten` and `grown` are bounds, see `TimeBounds`.
    """
    courses = recurrent_courses(run, forgotten)
    if isinstance(courses, str):
        is_missing = courses == _NOT_RECORDED
        return [
            NotAsked(key, courses, applies=is_missing)
            for key in ("vanishing-in-time", "exploding-in-time")
        ]
    falls = [window_medians(one.least, max_steps) for one in courses]
    grows = [window_medians(one.growth, max_steps) for one in courses]
    shortest = int(np.argmin([np.inf if one.value is None else one.value for one in falls]))
    steepest = int(np.argmax([-np.inf if one.value is None else one.value for one in grows]))
    return [
        _vanishing(run, courses[shortest], falls[shortest], forgotten),
        _exploding(run, courses[steepest], grows[steepest], grown),
    ]


_NOT_RECORDED = "the gradient by position was not recorded of a recurrent layer"
_NONE = "no layer is recurrent"
_EVERYWHERE = "the loss reads every position, so that each gets a gradient of its own"
_SHORT = f"no sequence has {MIN_POSITIONS} positions"


def recurrent_courses(run: Run, forgotten: float) -> list[Course] | str:
    """The courses of all recurrences that can be judged; otherwise the reason why there is none."""
    table = run.table("positions")
    recurrent = run.layers[run.layers["role"] == "recurrent"]
    is_cell = recurrent["type"].astype(str).str.endswith("Cell")  # one step of time each
    looped = set(table.loc[table["tensor"] == "calls", "layer"])
    looped -= {one for one in looped if any(one.startswith(f"{outer}.") for outer in looped)}
    fused = set(recurrent.loc[~is_cell, "layer"])
    if not len(recurrent) and not looped:
        return _NONE
    found = [_course(table, name, "calls") for name in sorted(looped)]
    reason = _NOT_RECORDED
    for name in sorted(fused):
        inputs = _course(table, name, "input", is_flipped=_reads_the_first(table, name))
        outputs = _course(table, name, "output")
        if inputs is not None and outputs is not None and _is_everywhere(outputs, forgotten):
            reason, inputs = _EVERYWHERE, None
        elif inputs is None and len(table[(table["layer"] == name) & (table["tensor"] == "input")]):
            reason = _SHORT
        found.append(inputs)
    return [one for one in found if one is not None] or (reason if fused else _SHORT)


def _is_everywhere(outputs: Course, forgotten: float) -> bool:
    value = window_medians(outputs.least).value
    return value is not None and value >= forgotten


def _reads_the_first(table: pd.DataFrame, layer: str) -> bool:
    """Whether the loss reads a layer's first outputs and none of the last, which it computes too.

    So it is where a layer that runs in both directions is read at its first position.
    """
    rows = table[(table["layer"] == layer) & table["tensor"].isin(["input", "output"])]
    rows = rows[rows["step"] == rows["step"].max()]
    by_tensor = rows.pivot_table(index="bin", columns="tensor", values="gradient_norm")
    if set(by_tensor.columns) != {"input", "output"}:
        return False
    inputs, outputs = by_tensor["input"].to_numpy(), by_tensor["output"].to_numpy()
    used = np.flatnonzero(inputs)
    read = outputs[: used[-1] + 1 if len(used) else 0]
    quarter = len(read) // 4
    return bool(quarter and read[:quarter].any() and not read[-quarter:].any())


def _course(
    table: pd.DataFrame, layer: str, tensor: str, *, is_flipped: bool = False
) -> Course | None:
    rows = table[(table["layer"] == layer) & (table["tensor"] == tensor)]
    if not len(rows):
        return None
    rows = rows.sort_values(["step", "bin"], kind="stable")
    steps, starts = np.unique(rows["step"].to_numpy(), return_index=True)
    columns = rows[["last_position", "gradient_norm", "rms"]].to_numpy(dtype=float).T
    profiles = [
        _profile(one, -1 if is_flipped else 1) for one in np.split(columns, starts[1:], axis=1)
    ]
    known = np.array([one is not None for one in profiles])
    if not known.any():
        return None
    kept = [one for one in profiles if one is not None]
    values = np.array([_numbers(norms) for _, norms in kept])
    return Course(layer, steps[known], values[:, 0], values[:, 1], kept, is_flipped)


def _profile(columns: Array, direction: int) -> Array | None:
    """Positions and norms over the largest, without padding; None if there is no course.

    Time runs through them in the `direction` 1 or -1.
    """
    positions, norms, rms = columns
    # At the end of padded sequences, nothing is read; inputs of zero are padding too.
    used = np.flatnonzero(norms != 0)
    if not len(used) or not np.isfinite(norms).all() or positions[-1] < MIN_POSITIONS - 1:
        return None
    kept = (np.arange(len(norms)) <= used[-1]) & (rms != 0)
    if kept.sum() < MIN_BINS:
        return None
    return np.stack([positions[kept], norms[kept] / norms.max()])[:, ::direction]


def _numbers(norms: Array) -> tuple[float, float]:
    """`Course.least` and `Course.growth` of one step."""
    quarter, tenth = max(1, len(norms) // 4), max(1, len(norms) // 10)
    least = float(np.quantile(norms, 1 / 8, method="lower"))
    near, last = float(np.median(norms[-quarter:])), float(np.median(norms[-tenth:]))
    growth = float(np.median(norms[:quarter])) / last if last else np.nan
    return least / near if near else np.nan, growth


def _vanishing(run: Run, one: Course, medians: WindowMedians, bound: float) -> Reading:
    verdict = verdict_of(medians, bound, above=False)
    early = is_beyond(medians.early_value, bound, above=False)
    since = held_since(one.least < bound, one.steps, OVERLOOKED)
    note, next_step, said, cause = "", "", "", ""
    if verdict is Verdict.SUPPORTED:
        said = _forgotten_positions(one, bound)
        share = _loss_share(run)
        if share is None:
            verdict = Verdict.INCONCLUSIVE
            note = (
                "Without the loss of 40 recorded steps it cannot be told whether what is learnt "
                "needs those positions."
            )
            next_step = "Log the loss of each step: tracer.log(loss=loss)."
        elif share <= LEARNT:
            verdict, early, since = Verdict.CONTRADICTED, False, None
            said += (
                f", but the loss falls to {number(share)} of what it was: what is learnt needs no "
                "longer memory"
            )
        else:
            cause = _cause(run, one)
    elif early and verdict is Verdict.CONTRADICTED:
        note = _hardly_back(run, medians, bound)
        if note:
            verdict = Verdict.INCONCLUSIVE
            next_step = "Train on and ask again, or begin with weights that keep the gradient."
    return Reading(
        "vanishing-in-time",
        verdict,
        "gradient norm at the positions that get the least, over that near to where the loss reads",
        one.layer,
        medians.value,
        medians.low,
        medians.high,
        medians.early_value,
        early,
        bound,
        f"below {number(bound)}",
        medians.method,
        note,
        said=said,
        cause=cause,
        next_step=next_step,
        since=since if verdict is Verdict.SUPPORTED else None,
        otherwise=(
            "If only the last positions matter, the loss is held up by something else: shorten the "
            "sequence to them, and see whether it then falls no worse."
            if verdict is Verdict.SUPPORTED
            else ""
        ),
    )


def _hardly_back(run: Run, medians: WindowMedians, bound: float) -> str:
    """That a gradient which had vanished is little above the bound, and little learnt; or ""."""
    share = _loss_share(run)
    if share is None or share <= LEARNT or (medians.high or 0.0) >= RECOVERED * bound:
        return ""
    return (
        f"In the first steps it was {number(medians.early_value or 0.0)}, and it has hardly come "
        f"back: the loss has only fallen to {number(share)} of what it was."
    )


def _exploding(run: Run, one: Course, medians: WindowMedians, bound: float) -> Reading:
    verdict = verdict_of(medians, bound, above=True)
    early = is_beyond(medians.early_value, bound, above=True)
    since = held_since(one.growth > bound, one.steps, OVERLOOKED)
    said, cause = "", ""
    share = _loss_share(run)
    learns = share is not None and share <= LEARNT
    if verdict is not Verdict.CONTRADICTED and learns and (medians.value or 0) < HARMLESS:
        verdict, early, since = Verdict.CONTRADICTED, False, None
        said = (
            f"the first positions get {number(medians.value or 0)} times the gradient of the last "
            f"at layer {one.layer}, and the loss falls to {number(share or 0)} of what it was"
        )
    elif verdict is Verdict.SUPPORTED:
        factor = _factor(one)
        cause = (
            f"Each step back in time multiplies the gradient by about {number(factor)}: the first "
            "positions outweigh all others."
        )
    return Reading(
        "exploding-in-time",
        verdict,
        "gradient norm at the first positions over that at the last",
        one.layer,
        medians.value,
        medians.low,
        medians.high,
        medians.early_value,
        early,
        bound,
        f"above {number(bound)}",
        medians.method,
        said=said,
        cause=cause,
        since=since,
    )


def _forgotten_positions(one: Course, bound: float) -> str:
    """Which positions get next to nothing, as a clause."""
    positions, norms = one.profiles[-1]
    below = norms < bound
    of = f"of the largest gradient at layer {one.layer}"
    first = int(np.argmin(below)) if not below.all() else len(below)
    if first and not one.is_flipped:
        count = int(positions[first - 1]) + 1
        return f"the first {count} of {one.length} positions get less than {number(bound)} {of}"
    count = round(one.length * float(below.mean()))
    return f"{count} of {one.length} positions get less than {number(bound)} {of}"


def _cause(run: Run, one: Course) -> str:
    said = f"Each step back in time leaves about {number(_factor(one))} of the gradient"
    name = one.layer.split("#", maxsplit=1)[0]
    kinds = run.layers.loc[run.layers["layer"] == name, "type"].astype(str)
    table = run.table("positions")
    states = table[(table["layer"] == one.layer) & (table["tensor"] != "input")]
    last = states.loc[states["step"] == states["step"].max(), "rms"]
    if not kinds.isin(["RNN", "RNNCell"]).any():
        return f"{said}: nothing before them has a part in what is learnt."
    if len(last) and SATURATED < last.median() <= 1:
        return (
            f"{said}, for the states lie at the bounds of tanh (root mean square "
            f"{number(float(last.median()))}): inputs or recurrent weights are too large."
        )
    return f"{said}: the recurrent weights are too small, or the units closed."


def _factor(one: Course) -> float:
    """The factor by which the norm changes with each step back, in the last step."""
    positions, norms = one.profiles[-1]
    known = norms > LEAST
    if known.sum() < 2:
        return 0.0
    slopes = np.diff(np.log(norms[known])) / np.abs(np.diff(positions[known]))
    return float(np.exp(-np.median(slopes)))


def _loss_share(run: Run) -> float | None:
    """The loss of the last steps over that of the first; None if there are too few, or it is 0."""
    losses = run.steps["loss"].to_numpy(dtype=float)
    losses = losses[np.isfinite(losses)]
    if len(losses) < MIN_LOSSES:
        return None
    size = window_size(len(losses))
    first, last = float(np.median(losses[:size])), float(np.median(losses[-size:]))
    return last / first if first > 0 else None


def _read(run: Run, bounds: TimeBounds) -> list[Answer]:
    return time_answers(run, bounds.forgotten, bounds.grown, bounds.last_steps)


_METHOD = (
    "In time: gradient norms by position of what reaches the inputs of recurrent layers, and of "
    "the calls of modules in a loop."
)
VANISHING_IN_TIME = Condition(
    key="vanishing-in-time",
    hypothesis="Gradients[ of {}] vanish through time.",
    holds="gradients vanish through time",
    fails="no gradient that is needed vanishes through time",
    unknown="it cannot be told whether gradients vanish through time",
    contradicted_by="A gradient at all positions whose interval lies above the bound.",
    next_step=(
        "Begin with orthogonal recurrent weights (the identity for ReLU), or with gates that stay "
        "open (a bias of the forget gate of about the logarithm of the length), or shorten the "
        "sequence to the positions that count."
    ),
    source=(
        "Bengio et al. 1994, Learning long-term dependencies with gradient descent is difficult; "
        "Pascanu et al. 2013, On the difficulty of training recurrent neural networks"
    ),
    read=_read,
    bound="forgotten",
    method=_METHOD,
    leads_to=("not-learning",),
)
EXPLODING_IN_TIME = Condition(
    key="exploding-in-time",
    hypothesis="Gradients[ of {}] explode through time.",
    holds="gradients explode through time",
    fails="gradients do not explode through time",
    unknown="it cannot be told whether gradients explode through time",
    contradicted_by="A ratio of the norms at first and last positions whose interval lies below "
    "the bound.",
    next_step=(
        "Begin with orthogonal recurrent weights and clip the gradient's norm, or cut "
        "back-propagation after fewer steps."
    ),
    source="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    read=_read,
    bound="grown",
    leads_to=("clipped", "non-finite", "not-learning"),
)
