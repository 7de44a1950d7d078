"""Dead units, saturated units and values that are not finite, in one run."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.health.readings import (
    MIN_WINDOW,
    Reading,
    is_beyond,
    verdict_of,
    window_medians,
    window_size,
)
from analyses.reading.layer_gradients import pivot_by_step
from analyses.result import Verdict
from analyses.statistics import Array as Floats
from analyses.statistics.basics.distributions import binomial_at_least
from analyses.wording.numbers import number, share_bound
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run

MAX_CHANCE = 0.01  # of so many dead channels by chance in some activation layer
_BOUNDED = {"Tanh", "Sigmoid"}


def channels(layers: pd.DataFrame) -> pd.Series:
    """Channels of each layer's output, indexed by layer.

    After a convolution this is the first number of the shape. After a linear layer it is the last
    one: there outputs have shape [N, T, C].
    """
    role = layers["role"].where(layers["role"].isin(["convolution", "linear"])).ffill()
    parts = layers["shape"].astype(str).str.split("x")
    sizes = np.where(role == "convolution", parts.str[0], parts.str[-1])
    return pd.Series(pd.to_numeric(sizes, errors="coerce"), index=layers["layer"])


def dead_counts(run: Run) -> tuple[pd.DataFrame, Floats]:
    """Counts of dead channels, one row a step, one column an activation layer; and all channels."""
    layers = run.layers.drop_duplicates("layer")
    layers = layers[layers["role"].isin(["convolution", "linear", "activation"])]
    counted = channels(layers)[(layers["role"] == "activation").to_numpy()].dropna()
    dead = pivot_by_step(run.activations, "dead_channels", pd.Series(counted.index, dtype=object))
    dead = dead.dropna(axis=1, how="all")
    return dead, counted[dead.columns].to_numpy(dtype=float)


def is_dead(counts: Floats, total: Floats, share: float) -> NDArray[np.bool_]:
    """Whether each layer is dead, and not by chance: `counts` of its `total` channels, [layers]."""
    by_chance = binomial_at_least(counts, total, 0.5) * len(total)  # Bonferroni, over layers
    ill: NDArray[np.bool_] = (counts == total) | (
        (counts / total > share) & (by_chance < MAX_CHANCE)
    )
    return ill


def dead_reading(run: Run, share: float, max_steps: int) -> Reading | None:
    """Whether most channels of an activation layer are zero on every input; None if unknown.

    A channel that is always dead is dead at each step. The smallest count over the last steps is
    therefore an upper bound of the channels that are always dead. A layer is dead if this count
    exceeds the share `share` of its channels, and by more than chance. Without normalization all
    inputs look alike at large depth; half of the ReLUs are then zero on all of them by symmetry
    alone (Binomial(n, 1/2)).
    """
    dead, total = dead_counts(run)
    if dead.empty:
        return None
    # Of each layer the steps in which it ran, as an expert does that is chosen now and then. On a
    # handful of inputs half of the ReLUs are zero by chance: layers that ran less are left out.
    often = (dead.notna().sum() >= min(len(dead), MIN_WINDOW)).to_numpy()
    dead, total = dead.loc[:, often], total[often]
    if dead.empty:
        return None
    ran = [dead[name].dropna().to_numpy() for name in dead]
    sizes = [window_size(len(counts), max_steps) for counts in ran]
    pairs = list(zip(ran, sizes, strict=True))
    last = np.array([counts[-size:].min() for counts, size in pairs])
    first = np.array([counts[:size].min() for counts, size in pairs])
    worst = int(np.argmax(last / total))
    ill = is_dead(last, total, share)
    worst = int(np.argmax(ill)) if ill.any() else worst
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
    )


def mean_slope(run: Run) -> pd.DataFrame:
    """Mean over largest derivative of each tanh and sigmoid, one row a step, one column a layer.

    It is exact, from two recorded moments of the output y: 1 - E[y^2] for tanh and
    4 (E[y] - E[y^2]) for sigmoid. The output layer is left out: a confident classifier is not ill.
    """
    layers = run.layers.drop_duplicates("layer")
    inner = layers[layers["type"].isin(_BOUNDED) & (layers["depth"] < layers["depth"].max())]
    squares = pivot_by_step(run.activations, "rms", inner["layer"]) ** 2
    means = pivot_by_step(run.activations, "mean", inner["layer"])
    sigmoid = (inner["type"] == "Sigmoid").to_numpy()
    slopes: pd.DataFrame = (4 * (means - squares)).where(
        np.broadcast_to(sigmoid, squares.shape), 1 - squares
    )
    return slopes


def saturation_reading(run: Run, saturated: float, max_steps: int) -> Reading | None:
    """Whether the units of a tanh or sigmoid layer are stuck at their bounds; None without such.

    The smallest mean derivative of a layer, as a share of the largest possible one, is compared
    with `saturated`.
    """
    slopes = mean_slope(run).dropna(axis=1, how="all")
    if slopes.empty:
        return None
    readings = [
        (str(name), window_medians(slopes[name].to_numpy(), max_steps)) for name in slopes.columns
    ]
    known = [entry for entry in readings if entry[1].value is not None]
    if not known:
        return None
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
    )


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


def nonfinite_reading(run: Run) -> Reading | None:
    """Whether a NaN or infinite value was recorded, and where the first one was.

    None if neither activations nor gradients were recorded.
    """
    if not len(run.activations) and not len(run.gradients):
        return None
    first: dict[str, Any] = run.description.get("first_nonfinite") or first_nonfinite(run) or {}
    recorded = run.activations["step"] if len(run.activations) else run.gradients["step"]
    steps = recorded.nunique()
    broken = _broken_steps(run)
    return Reading(
        "non-finite",
        Verdict.SUPPORTED if first else Verdict.CONTRADICTED,
        "number of recorded steps with a value that is NaN or infinite",
        str(first["layer"]) if first else "",
        float(len(broken)),
        None,
        None,
        None,
        bool(first) and int(first["step"]) == int(recorded.min()),
        0.0,
        "any such value",
        f"count over {plural(steps, 'recorded step')}; no interval: nothing was sampled",
        ""
        if not first
        else (
            f"The first was in step {first['step']} of epoch {first['epoch']}, "
            f"{'the output' if first['direction'] == 'forward' else 'the gradient of the output'} "
            f"of layer {first['layer']} ({first['direction']} pass)."
        ),
    )


def _counts(run: Run) -> list[tuple[str, pd.DataFrame]]:
    """Rows with non-finite values by direction, without gradients of steps that were skipped."""
    skipped = run.steps.loc[run.steps["skipped"].astype(bool), "step"] if len(run.steps) else []
    gradients = run.gradients[~run.gradients["step"].isin(skipped)]
    return [
        ("forward", run.activations[run.activations["nonfinite"] > 0]),
        ("backward", gradients[gradients["nonfinite"] > 0]),
    ]


def _broken_steps(run: Run) -> set[int]:
    return {int(step) for _, rows in _counts(run) for step in rows["step"]}


def first_nonfinite(run: Run) -> dict[str, Any] | None:
    """The first non-finite value in the tables of `run`: epoch, step, layer, direction; or None.

    For runs whose description lacks this entry. Within a step the forward pass comes first.
    """
    found = [
        {"direction": direction, **rows.sort_values("step", kind="stable").iloc[0].to_dict()}
        for direction, rows in _counts(run)
        if len(rows)
    ]
    return min(found, key=lambda entry: int(entry["step"]), default=None)
