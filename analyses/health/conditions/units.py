"""Dead units, saturated units and values that are not finite, in one run."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import (
    MIN_WINDOW,
    Reading,
    held_since,
    is_beyond,
    since_beyond,
    verdict_of,
    window_medians,
    window_size,
)
from analyses.reading.layer_gradients import pivot_by_step
from analyses.reading.once import once_per_run
from analyses.result import Verdict
from analyses.statistics import Array as Floats
from analyses.wording.numbers import number, share_bound
from analyses.wording.phrases import plural
from gradflow.conditions import bounds
from gradflow.conditions.bounds import MAX_CHANCE
from gradflow.conditions.dead import is_dead
from gradflow.runs.reading.run import Run

_BOUNDED = {"Tanh", "Sigmoid"}


@dataclass(frozen=True)
class UnitBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        dead: for the share of channels of one activation layer that are always zero.
        saturated: for the mean derivative of a bounded activation over its largest derivative.
    """

    dead: float = bounds.DEAD
    saturated: float = 0.1


def channels(layers: pd.DataFrame) -> pd.Series:
    """Channels of each layer's output, indexed by layer.

    After a convolution this is the first number of the shape. After a linear layer it is the last
    one: there outputs have shape [N, T, C].
    """
    role = layers["role"].where(layers["role"].isin(["convolution", "linear"])).ffill()
    parts = layers["shape"].astype(str).str.split("x")
    sizes = np.where(role == "convolution", parts.str[0], parts.str[-1])
    return pd.Series(pd.to_numeric(sizes, errors="coerce"), index=layers["layer"])


@once_per_run
def dead_counts(run: Run) -> tuple[pd.DataFrame, Floats]:
    """Counts of dead channels, one row a step, one column an activation layer; and all channels."""
    layers = run.layers.drop_duplicates("layer")
    layers = layers[layers["role"].isin(["convolution", "linear", "activation"])]
    counted = channels(layers)[(layers["role"] == "activation").to_numpy()].dropna()
    dead = pivot_by_step(run.activations, "dead_channels", pd.Series(counted.index, dtype=object))
    dead = dead.dropna(axis=1, how="all")
    return dead, counted[dead.columns].to_numpy(dtype=float)


def dead_answer(run: Run, share: float, max_steps: int) -> Answer:
    """Whether most channels of an activation layer are zero on every input; not asked if unknown.

    A channel that is always dead is dead at each step. The smallest count over the last steps is
    therefore an upper bound of the channels that are always dead. A layer is dead if this count
    exceeds the share `share` of its channels, and by more than chance. Without normalization all
    inputs look alike at large depth; half of the ReLUs are then zero on all of them by symmetry
    alone (Binomial(n, 1/2)).
    """
    dead, total = dead_counts(run)
    if dead.empty:
        return _no_dead(run)
    # Of each layer the steps in which it ran, as an expert does that is chosen now and then. On a
    # handful of inputs half of the ReLUs are zero by chance: layers that ran less are left out.
    often = (dead.notna().sum() >= min(len(dead), MIN_WINDOW)).to_numpy()
    dead, total = dead.loc[:, often], total[often]
    if dead.empty:
        return NotAsked("dead", "no activation layer ran in enough steps")
    ran = [dead[name].dropna().to_numpy() for name in dead]
    sizes = [window_size(len(counts), max_steps) for counts in ran]
    pairs = list(zip(ran, sizes, strict=True))
    last = np.array([counts[-size:].min() for counts, size in pairs])
    first = np.array([counts[:size].min() for counts, size in pairs])
    ill = is_dead(last, total, share)
    worst, since = int(np.argmax(last / total)), None
    if ill.any():
        begun = {
            place: _dead_since(dead.iloc[:, place], total[place], share, len(total))
            for place in map(int, np.flatnonzero(ill))
        }
        worst = int(min(begun, key=lambda place: (begun[place], place)))
        since = begun[worst]
    return Reading(
        "dead",
        Verdict.SUPPORTED if ill.any() else Verdict.CONTRADICTED,
        "largest share of a layer's channels that are zero on every input",
        str(dead.columns[worst]),
        float(last[worst] / total[worst]),
        None,
        None,
        float(first[worst] / total[worst]),
        bool(is_dead(first, total, share).any()),
        share,
        f"above {share_bound(share)} and beyond chance (p < {number(MAX_CHANCE)} over all "
        "layers), or all of them",
        f"smallest count over the last {sizes[worst]} of {len(ran[worst])} recorded steps; no "
        "interval: a count "
        f"of {int(total[worst])} channels",
        "" if ill.sum() < 2 else f"{plural(int(ill.sum()), 'layer')} are dead.",
        since=since,
        link=f"{int(last[worst])} of {plural(int(total[worst]), 'channel')} of layer "
        f"{dead.columns[worst]} are dead",
    )


def _dead_since(counts: pd.Series, channels: float, share: float, layers: int) -> int:
    ran = counts.dropna()
    ill = is_dead(ran.to_numpy(), np.array([channels]), share, layers)
    since = held_since(ill, ran.index.get_level_values("step").to_numpy())
    # A layer is dead by its smallest count over the last steps: so it is in each of them.
    return int(ran.index[-1][1]) if since is None else since


def _no_dead(run: Run) -> NotAsked:
    if not len(run.activations):
        return NotAsked("dead", "no activations were recorded")
    return NotAsked("dead", "no layer with an activation such as ReLU was recorded", applies=False)


def mean_slope(run: Run) -> pd.DataFrame:
    """Mean over largest derivative of each tanh and sigmoid, one row a step, one column a layer.

    It is exact, from two recorded moments of the output y: 1 - E[y^2] for tanh and
    4 (E[y] - E[y^2]) for sigmoid. The output layer is left out: a confident classifier is not ill.
    """
    inner = _inner_bounded(run)
    squares = pivot_by_step(run.activations, "rms", inner["layer"]) ** 2
    means = pivot_by_step(run.activations, "mean", inner["layer"])
    sigmoid = (inner["type"] == "Sigmoid").to_numpy()
    slopes: pd.DataFrame = (4 * (means - squares)).where(
        np.broadcast_to(sigmoid, squares.shape), 1 - squares
    )
    return slopes


def _inner_bounded(run: Run) -> pd.DataFrame:
    layers = run.layers.drop_duplicates("layer")
    return layers[layers["type"].isin(_BOUNDED) & (layers["depth"] < layers["depth"].max())]


def saturation_answer(run: Run, saturated: float, max_steps: int) -> Answer:
    """Whether the units of a tanh or sigmoid layer are stuck at their bounds, if there is one.

    The smallest mean derivative of a layer, as a share of the largest possible one, is compared
    with `saturated`.
    """
    slopes = mean_slope(run).dropna(axis=1, how="all")
    if slopes.empty:
        return _no_slopes(run)
    readings = [
        (str(name), window_medians(slopes[name].to_numpy(), max_steps)) for name in slopes.columns
    ]
    known = [entry for entry in readings if entry[1].value is not None]
    if not known:
        return NotAsked("saturated", "no finite output of a tanh or sigmoid was recorded")
    layer, one = min(known, key=lambda entry: float(entry[1].value or 0.0))
    through = _gradient_through(run, layer, max_steps)
    return Reading(
        "saturated",
        verdict_of(one, saturated, above=False),
        "smallest mean derivative of a layer's units over the largest possible one",
        layer,
        one.value,
        one.low,
        one.high,
        one.early_value,
        is_beyond(one.early_value, saturated, above=False),
        saturated,
        f"below {share_bound(saturated)}",
        one.method,
        ""
        if through is None
        else f"Passing this layer backward, the gradient norm is multiplied by {number(through)}.",
        since=since_beyond(slopes[layer], saturated, above=False),
    )


def _no_slopes(run: Run) -> NotAsked:
    if not run.layers["type"].isin(_BOUNDED).any():
        return NotAsked("saturated", "no layer is a tanh or sigmoid", applies=False)
    if not len(_inner_bounded(run)):
        reason = "the only tanh or sigmoid is that of the output"
        return NotAsked("saturated", reason, applies=False)
    return NotAsked("saturated", "the outputs of inner tanh or sigmoid layers were not recorded")


def _gradient_through(run: Run, layer: str, max_steps: int) -> float | None:
    """Gradient norm at the activation's input over that at its output, over the last steps."""
    layers = run.layers.drop_duplicates("layer").reset_index(drop=True)
    place = int(layers.index[layers["layer"] == layer][0])
    if place == 0 or layers["shape"][place - 1] != layers["shape"][place]:
        return None
    pair = pd.Series([layers["layer"][place - 1], layer])
    norms = pivot_by_step(run.gradients, "norm", pair)
    after = norms[layer].where(norms[layer] > 0)
    return window_medians((norms[pair[0]] / after).to_numpy(), max_steps).value


def _read_dead(run: Run, bounds: UnitBounds) -> list[Answer]:
    return [dead_answer(run, bounds.dead, bounds.last_steps)]


def _read_saturated(run: Run, bounds: UnitBounds) -> list[Answer]:
    return [saturation_answer(run, bounds.saturated, bounds.last_steps)]


DEAD = Condition(
    key="dead",
    hypothesis="Most channels of some layer[ of {}] are dead: zero on every input.",
    holds="some layer has mostly dead channels",
    fails="no layer has mostly dead channels",
    unknown="it cannot be told whether some layer has mostly dead channels",
    contradicted_by="No activation layer with that many channels that are always zero.",
    next_step=(
        "Try a smaller learning rate, biases at zero, normalization before the activation, or "
        "leaky ReLUs."
    ),
    to_ask="Record more steps, with the activation layers observed: leave observe= out.",
    source="Lu et al. 2020, Dying ReLU and initialization",
    leads_to=("vanishing", "stalled", "collapsed", "not-learning"),
    read=_read_dead,
    bound="dead",
    method="Dead: channels that are zero on the whole batch in every one of these steps.",
)

SATURATED = Condition(
    key="saturated",
    hypothesis="The units of some layer[ of {}] are saturated.",
    holds="some layer has saturated units",
    fails="no layer has saturated units",
    unknown="it cannot be told whether some layer has saturated units",
    contradicted_by="A mean derivative whose interval lies above the bound in every such layer.",
    next_step=(
        "Try smaller initial weights, normalization before the activation, or inputs of unit "
        "variance."
    ),
    to_ask="Observe the tanh and sigmoid layers: leave observe= out.",
    source="Glorot & Bengio 2010 (saturation)",
    leads_to=("vanishing", "stalled", "not-learning"),
    read=_read_saturated,
    bound="saturated",
    method=(
        "The derivative of tanh and sigmoid comes from recorded moments, 1 - E[y^2] and "
        "4 (E[y] - E[y^2])."
    ),
)
