"""Where two runs differ first: beyond rounding, or beyond the spread between seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.comparison.alignment import align_layers
from analyses.reading.layer_gradients import pivot_by_step
from analyses.reading.options import turns_of_updates
from analyses.statistics import Array
from gradflow.runs.reading.run import Run

# Norms in float32 that are summed in another order differ by about 1e-6 of themselves.
ROUNDING = 1e-5
# Rounding grows from step to step as a training amplifies it, but not by this much at once.
JUMP = 100.0
ALPHA = 0.05
MOST_RELABELLINGS = 200

# In the order of a step: table, key, quantity, what it is of, and whether the step runs backward.
_ORDER = (
    ("parameters", "parameter", "weight_norm", "the norm of {}", False),
    ("activations", "layer", "rms", "the output of {} (root mean square)", False),
    ("steps", "", "loss", "the loss", False),
    ("gradients", "layer", "norm", "the gradient at the output of {} (norm)", True),
    ("parameters", "parameter", "backward_gradient_norm", "the gradient of {} (norm)", True),
    ("parameters", "parameter", "update_norm", "the update of {} (norm)", False),
)


@dataclass(frozen=True)
class Numbers:
    """All that is compared of several runs at their common steps, in order of execution.

    Fields:
        steps: [S] the common steps.
        names, whats: [N] what each column is of: a name of the first run, and words with the name.
        values: [runs, S, N]; nan where a run has none, or an observed nan.
    """

    steps: NDArray[np.int64]
    names: list[str]
    whats: list[str]
    values: Array


@dataclass(frozen=True)
class Place:
    """A number that differs: step, layer or parameter, words for it, and its values."""

    step: int
    name: str
    what: str
    first: float
    second: float


@dataclass(frozen=True)
class Divergence:
    """What the comparison of two runs says.

    Fields:
        place: the first number that differs beyond rounding; None if none does.
        before: the largest relative difference in the steps before it, or in all steps.
        drifts_from: the first step with a difference above `ROUNDING`, if differences only grow
            little by little, as those of rounding do; else None.
        steps: how many steps both runs recorded.
    """

    place: Place | None
    before: float
    drifts_from: int | None
    steps: int


def first_difference(first: Run, second: Run) -> Divergence | None:
    """The first step and layer in which two runs of one seed differ beyond rounding.

    A number differs beyond rounding if the relative difference is above `ROUNDING`, and above
    `JUMP` times the largest one in all steps before. Of a step, weights come first, then outputs
    from the input on, loss, gradients from the output on, updates. None without a common step.
    """
    numbers = numbers_of([first, second])
    if not len(numbers.steps):
        return None
    ours, theirs = numbers.values
    apart = _relative(ours, theirs)
    known = np.nan_to_num(apart, nan=0.0, posinf=np.inf)
    largest = known.max(axis=1) if known.size else np.zeros(len(numbers.steps))
    before = np.concatenate([[0.0], np.maximum.accumulate(largest)[:-1]])
    beyond = known > np.maximum(ROUNDING, JUMP * before)[:, None]
    steps = len(numbers.steps)
    if beyond.any():
        row = int(np.argmax(beyond.any(axis=1)))
        place = _place(numbers, row, int(np.argmax(beyond[row])), ours, theirs)
        return Divergence(place, float(before[row]), None, steps)
    drifts = np.flatnonzero(largest > ROUNDING)
    since = int(numbers.steps[drifts[0]]) if len(drifts) else None
    return Divergence(None, float(largest.max(initial=0.0)), since, steps)


def fewest_seeds() -> int:
    """How many runs a side are needed, so that relabelling them can tell chance from difference."""
    count = 2
    while int(ALPHA * comb(2 * count, count)) < 2:  # swapping the groups changes nothing
        count += 1
    return count


def beyond_seeds(first: Sequence[Run], second: Sequence[Run]) -> tuple[Place | None, int] | None:
    """The first step and layer in which two groups of runs differ beyond the spread of each.

    The statistic of a number is the difference of the groups' mean logarithms over their pooled
    standard deviation, to which the median one of the quantity is added (Tusher et al. 2001), so
    that a number that hardly varies by chance does not count. It is beyond the spread if it exceeds
    the 95th percentile of the largest statistic over all steps, layers and quantities when the runs
    are assigned to the groups anew (Westfall & Young 1993): the chance of any false place is 5 %.

    Returns the place, or None, with the number of assignments; None if the groups are too small for
    that or have no number in common. `Place.first` and `second` are the geometric means.
    """
    count = len(first)
    assignments = _assignments(count, count + len(second))
    if min(count, len(second)) < 2 or int(ALPHA * len(assignments)) < 2:
        return None
    numbers = numbers_of([*first, *second])
    positive = (numbers.values > 0) & np.isfinite(numbers.values)
    cells = positive.all(axis=0)
    if not cells.any():
        return None
    logs = np.log(numbers.values[:, cells])
    rows, columns = np.nonzero(cells)
    kinds = np.array([what.partition("{}")[0] for what in numbers.whats])[columns]
    extra = _typical_spread(logs, count, kinds)
    largest = np.sort([float(_statistic(logs, chosen, extra).max()) for chosen in assignments])
    observed = _statistic(logs, tuple(range(count)), extra)
    # At most a share ALPHA of the assignments, the true one among them, reach the bound.
    # Of equal groups, the assignment that swaps them has the same statistic.
    reach = int(ALPHA * len(largest))
    bound = largest[len(largest) - (reach - reach % 2 if 2 * count == len(logs) else reach)]
    beyond = np.flatnonzero(observed >= bound)
    if not len(beyond):
        return None, len(assignments)
    one = int(beyond[np.lexsort((columns[beyond], rows[beyond]))[0]])
    row, column = int(rows[one]), int(columns[one])
    means = [float(np.exp(part[:, one].mean())) for part in (logs[:count], logs[count:])]
    what = numbers.whats[column].format(numbers.names[column])
    step = int(numbers.steps[row])
    return Place(step, numbers.names[column], what, *means), len(assignments)


def numbers_of(runs: Sequence[Run]) -> Numbers:
    """What all `runs` recorded, at their common steps; layers are aligned with the first run's."""
    partners: list[dict[str, str]] = [{}] + [
        align_layers(runs[0], one).partners for one in runs[1:]
    ]
    parts = [part for entry in _ORDER if (part := _frames(entry, runs, partners)) is not None]
    steps = set.intersection(*(set(part[2][0].index) for part in parts)) if parts else set()
    for _, _, frames in parts:
        for frame in frames:
            steps &= set(frame.index)
    common = np.array(sorted(steps), np.int64)
    names = [name for part in parts for name in part[0]]
    whats = [part[1] for part in parts for _ in part[0]]
    values = [
        np.concatenate(
            [
                np.zeros((len(common), 0)),
                *(part[2][place].loc[common].to_numpy() for part in parts),
            ],
            axis=1,
        )
        for place in range(len(runs))
    ]
    numbers = Numbers(common, names, whats, np.array(values, dtype=float))
    if any(turns_of_updates(run) > 1 for run in runs):
        everything = any("parameters_every" in run.description for run in runs)
        _leave_out_turns(numbers, everything=everything)
    return numbers


def _leave_out_turns(numbers: Numbers, *, everything: bool) -> None:
    """Compare only the updates that all runs measured: others had no turn in some run.

    If everything of a parameter has turns, so of all its numbers.
    """
    kinds = [
        what
        for table, _, column, what, _ in _ORDER
        if table == "parameters" and (everything or column == "update_norm")
    ]
    own = np.array([what in kinds for what in numbers.whats], dtype=bool)
    unknown = np.isnan(numbers.values).any(axis=0) & own
    numbers.values[:, unknown] = np.nan


def _frames(
    entry: tuple[str, str, str, str, bool],
    runs: Sequence[Run],
    partners: Sequence[dict[str, str]],
) -> tuple[list[str], str, list[pd.DataFrame]] | None:
    """Names, words and a frame a run, by step, of one quantity; None if a run lacks it."""
    table, key, quantity, what, backward = entry
    rows = [getattr(run, table) for run in runs]
    if not all(len(one) and quantity in one for one in rows):
        return None
    if not key:
        frames = [one.set_index("step")[[quantity]].astype(float) for one in rows]
        return ["loss"], what, [one[~one.index.duplicated()] for one in frames]
    names = list(dict.fromkeys(rows[0][key].dropna()))
    if table != "parameters":
        order = {name: place for place, name in enumerate(runs[0].layers["layer"])}
        names.sort(key=lambda name: order.get(name, len(order)))
    names = [*reversed(names)] if backward else names
    frames = []
    for one, known in zip(rows, partners, strict=True):
        theirs = pd.Series([_partner(name, known) for name in names], dtype=object)
        frame = pivot_by_step(one, quantity, theirs, key=key).droplevel("epoch")
        frames.append(frame[~frame.index.duplicated()])
    return names, what, frames


def _partner(name: str, partners: dict[str, str]) -> str:
    """The second run's name of a layer or parameter."""
    if name in partners:
        return partners[name]
    owner, _, own = name.rpartition(".")
    return f"{partners[owner]}.{own}" if owner in partners else name


def _relative(ours: Array, theirs: Array) -> Array:
    """Relative differences, infinite where only one is known; nan where a run never has one."""
    size = np.maximum(np.abs(ours), np.abs(theirs))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(ours - theirs) / size
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    # One that is missing or nan where the other is known differs; not if it is so at every step.
    recorded = (~np.isnan(ours)).any(axis=0) & (~np.isnan(theirs)).any(axis=0)
    one_sided = (np.isnan(ours) ^ np.isnan(theirs)) & recorded
    far = np.isinf(ours) | np.isinf(theirs) | one_sided
    found: Array = np.where(same, 0.0, np.where(far, np.inf, apart))
    return found


def _place(numbers: Numbers, row: int, column: int, ours: Array, theirs: Array) -> Place:
    name = numbers.names[column]
    what = numbers.whats[column].format(name)
    values = float(ours[row, column]), float(theirs[row, column])
    return Place(int(numbers.steps[row]), name, what, *values)


def _assignments(count: int, total: int) -> list[tuple[int, ...]]:
    """Which runs make the first group: all ways, or as many drawn, the true one among them."""
    if comb(total, count) <= MOST_RELABELLINGS:
        return list(combinations(range(total), count))
    draw = np.random.default_rng(0)
    found = {tuple(range(count))}
    while len(found) < MOST_RELABELLINGS:
        found.add(tuple(sorted(draw.choice(total, count, replace=False).tolist())))
    return sorted(found)


def _statistic(logs: Array, chosen: tuple[int, ...], extra: Array) -> Array:
    """|difference of means| over spread plus `extra`, of each cell: [cells]."""
    first, second = _groups(logs, chosen)
    apart: Array = np.abs(first.mean(axis=0) - second.mean(axis=0))
    spread = _pooled(first, second) + extra
    found: Array = np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0)
    return found


def _groups(logs: Array, chosen: tuple[int, ...]) -> tuple[Array, Array]:
    inside = np.zeros(len(logs), dtype=bool)
    inside[list(chosen)] = True
    return logs[inside], logs[~inside]


def _pooled(first: Array, second: Array) -> Array:
    squares = sum(((one - one.mean(axis=0)) ** 2).sum(axis=0) for one in (first, second))
    freedom = len(first) + len(second) - 2
    return np.asarray(np.sqrt(squares / freedom * (1 / len(first) + 1 / len(second))), dtype=float)


def _typical_spread(logs: Array, count: int, kinds: NDArray[np.str_]) -> Array:
    """The median spread of the cells of the same quantity, for each cell, whatever the groups."""
    spread = logs.std(axis=0, ddof=1) * np.sqrt(1 / count + 1 / (len(logs) - count))
    extra: Array = np.zeros(len(spread))
    for kind in np.unique(kinds):
        extra[kinds == kind] = np.median(spread[kinds == kind])
    return extra
