"""Vanishing, exploding and shattered gradients of one run.

Only tensors of one shape are compared. If a run has residual additions, the gradient is followed
along the trunk, from addition to addition: a branch that starts closed has gradients of zero,
although nothing vanishes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.entering import unless_entering
from analyses.health.onset import ADVICE, onset_cause
from analyses.health.readings import (
    Reading,
    WindowMedians,
    is_beyond,
    since_beyond,
    verdict_of,
    window_medians,
)
from analyses.reading.layer_gradients import (
    pivot_by_step,
    weighted_layers,
)
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.statistics.verdicts import verdict_below
from analyses.wording.numbers import number
from gradflow.conditions import bounds
from gradflow.conditions.depth import MIN_LAYERS, factor_range
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class GradientBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        vanishing, exploding: for the factor of the gradient norm over the whole depth.
        shattered: for the gradient's autocorrelation at the smallest recorded distance.
    """

    vanishing: float = bounds.VANISHING
    exploding: float = bounds.EXPLODING
    shattered: float = 0.3


@dataclass(frozen=True)
class GradientPlaces:
    """The places in a network, from input to output, where the gradient norm was recorded.

    Fields:
        names: the layers or additions at these places.
        norms: L2 norms, one row a step, one column a place.
        stage: number of the stage, [places]; places of one stage have tensors of one shape.
        sizes: elements per sample at each place, [places]; None if not known.
        kind: what the places are, in words.
    """

    names: list[str]
    norms: pd.DataFrame
    stage: Array
    sizes: Array | None
    kind: str


def gradient_places(run: Run) -> GradientPlaces | None:
    """The places along the trunk of a residual network; otherwise the layers with weights.

    The trunk consists of the outputs of modules that add a skip, and of the layers with weights
    outside these modules. If the forward of the model itself adds, no module has this output: the
    inputs of the additions are used instead, if there are three at least.

    None if gradients were recorded at fewer than two such places.
    """
    layers = run.layers.drop_duplicates("layer")
    names = run.junctions["layer"].drop_duplicates() if len(run.junctions) else pd.Series([])
    adding = set(names.astype(str).str.replace(r"[+#]\d+$", "", regex=True))
    if adding and not adding <= set(layers["layer"]):
        if len(names) >= MIN_LAYERS:
            return _inputs_of_additions(run, names)
        adding = set()  # one skip around many layers is no trunk
    if adding:
        inside = [any(name.startswith(f"{one}.") for one in adding) for name in layers["layer"]]
        outside = layers["role"].isin(["convolution", "linear"]) & ~np.array(inside)
        outside = _behind_norms(layers, outside.to_numpy(dtype=bool))
        chosen = layers[outside | layers["layer"].isin(adding)]
    else:
        chosen = layers[layers["layer"].isin(weighted_layers(layers)["layer"])]
        chosen = chosen.sort_values("depth", kind="stable")
    norms = pivot_by_step(run.gradients, "norm", chosen["layer"])
    shown = norms.notna().any().to_numpy()
    if shown.sum() < 2:
        return None
    chosen, norms = chosen[shown], norms.loc[:, shown]
    sizes = [np.prod([int(n) for n in shape.split("x")]) for shape in chosen["shape"]]
    return GradientPlaces(
        list(chosen["layer"]),
        norms,
        chosen["stage"].to_numpy(dtype=float),
        np.array(sizes, dtype=float),
        "outputs along the trunk" if adding else "layers with weights",
    )


def _behind_norms(layers: pd.DataFrame, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`chosen`, with the normalization in place of a layer whose output goes right into it.

    A normalization divides the gradient at its input by that input's standard deviation, whatever
    that is: beside the trunk, which has its own scale, this would count as growth.
    """
    norm = (layers["role"] == "normalization").to_numpy(dtype=bool)
    alike = layers["shape"].to_numpy()[:-1] == layers["shape"].to_numpy()[1:]
    before = np.append(chosen[:-1] & norm[1:] & alike, False)
    places: NDArray[np.bool_] = (chosen & ~before) | np.append(False, before[:-1])
    return places


def _inputs_of_additions(run: Run, names: pd.Series) -> GradientPlaces:
    kinds = run.junctions.drop_duplicates("layer")["skip_type"].to_numpy()
    projections = np.cumsum(kinds == "projection") - (kinds == "projection")
    # Runs of an earlier version lack the gradient at the input; use that by skip and branch.
    whole = run.junctions["input_gradient_norm"].astype(float)
    frame = run.junctions.assign(whole=whole.fillna(run.junctions["gradient_norm"]))
    norms = pivot_by_step(frame, "whole", names)
    return GradientPlaces(
        list(names), norms, projections.astype(float), None, "inputs of residual additions"
    )


def flow_answers(run: Run, vanishing: float, exploding: float, max_steps: int) -> list[Answer]:
    """Whether gradients vanish or explode on their way to the first layer.

    `vanishing` and `exploding` bound the factor over the whole depth.
    """
    places = gradient_places(run)
    if places is None:
        few = _trains_fewer_than_two(run)
        reason = (
            "fewer than two layers with weights are trained"
            if few
            else "gradients were recorded at fewer than two layers with weights"
        )
        return [NotAsked(key, reason, applies=not few) for key in ("vanishing", "exploding")]
    small, large = factor_range(places.norms, places.stage, places.sizes)
    factor = "factor of the gradient norm from the last to the first of the " + places.kind
    readings: list[Answer] = []
    for condition, series, bound, above in (
        ("vanishing", large, vanishing, False),
        ("exploding", small, exploding, True),
    ):
        one = window_medians(series, max_steps)
        verdict = verdict_of(one, bound, above=above)
        by_step = pd.Series(series, index=places.norms.index)
        vanishes = condition == "vanishing" and verdict is Verdict.SUPPORTED
        onset = onset_cause(run, by_step, bound, places.names) if vanishes else ""
        reading = Reading(
            condition,
            verdict,
            factor,
            places.names[0],
            one.value,
            one.low,
            one.high,
            one.early_value,
            is_beyond(one.early_value, bound, above=above) and not onset,
            bound,
            f"{'above' if above else 'below'} {number(bound)} over {len(places.names)} places",
            one.method,
            _flow_note(one, places),
            cause=onset,
            next_step=ADVICE if onset else "",
            since=since_beyond(by_step, bound, above=above),
        )
        if above:
            norms = places.norms.to_numpy(dtype=float)
            reading = unless_entering(run, reading, places.names, norms, places.stage, places.sizes)
        readings.append(reading)
    return readings


def _trains_fewer_than_two(run: Run) -> bool:
    """Whether no gradient is meant to pass through a layer: all others are frozen, or there is one.

    A run without the table of parameters does not tell.
    """
    trained = set(run.parameters["parameter"])
    weights = weighted_layers(run.layers)["layer"] + ".weight"
    return bool(trained) and int(weights.drop_duplicates().isin(trained).sum()) < 2


def _flow_note(one: WindowMedians, places: GradientPlaces) -> str:
    zeros = float((places.norms == 0).to_numpy().mean())
    if one.value is None:
        return "Too few finite gradients other than zero were recorded to compare layers."
    return "Gradients that are exactly zero have no logarithm and are left out." if zeros else ""


def shattering_answer(run: Run, shattered: float) -> Answer:
    """Whether the gradient is like white noise along a line of inputs, if that was recorded."""
    table = run.table("shattering")
    table = table[table["lag"] > 0]
    if not len(table):
        return NotAsked("shattered", "the probe of shattering did not run")
    return shattering_of(run, table, shattered)


def shattering_of(run: Run, table: pd.DataFrame, shattered: float) -> Reading:
    """The reading from rows of the table shattering at lags above 0, see `shattering_answer`.

    The autocorrelation at the smallest recorded distance, at the input or the first layer, is
    compared with `shattered`. Its interval is +- 1.96 / sqrt(points), that of white noise (Bartlett
    1946).
    """
    order = {name: place for place, name in enumerate(run.layers["layer"])}
    # The input is not in the table of layers: it comes first.
    first = min(table["layer"].unique(), key=lambda name: order.get(name, -1))
    own = table[table["layer"] == first]
    own = own[own["lag"] == own["lag"].min()].sort_values("epoch")
    value, early = float(own["autocorrelation"].iloc[-1]), float(own["autocorrelation"].iloc[0])
    lag, points = int(own["lag"].iloc[-1]), int(own["points"].iloc[-1])
    low, high = value - 1.96 / points**0.5, value + 1.96 / points**0.5
    known = np.isfinite(value)
    return Reading(
        "shattered",
        verdict_below(low, high, shattered) if known else Verdict.INCONCLUSIVE,
        f"autocorrelation of the gradient at a distance of {lag} in {points} points of a line",
        str(first),
        value if known else None,
        low if known else None,
        high if known else None,
        early if np.isfinite(early) else None,
        is_beyond(early, shattered, above=False),
        shattered,
        f"below {number(shattered)}",
        f"at the end of epoch {int(own['epoch'].iloc[-1])}; interval of white noise",
        "" if known else "The gradient was constant along the line.",
    )


def _read_flow(run: Run, bounds: GradientBounds) -> list[Answer]:
    return flow_answers(run, bounds.vanishing, bounds.exploding, bounds.last_steps)


def _read_shattering(run: Run, bounds: GradientBounds) -> list[Answer]:
    return [shattering_answer(run, bounds.shattered)]


VANISHING = Condition(
    key="vanishing",
    hypothesis="In the last recorded steps the gradients[ of {}] vanish toward the input.",
    holds="the gradients vanish toward the input in the last recorded steps",
    fails="the gradients do not vanish in the last recorded steps",
    unknown="it cannot be told whether the gradients vanish in the last recorded steps",
    contradicted_by="A factor over the depth whose interval lies above the bound.",
    next_step="Try He or Glorot initialization, normalization or skips, and check again.",
    to_ask="Observe at least two layers with weights: leave observe= out.",
    source=(
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural "
        "networks; Hanin 2018, How to start training"
    ),
    link="the gradients vanish toward the input",
    leads_to=("stalled", "not-learning"),
    read=_read_flow,
    bound="vanishing",
    method=(
        "Gradients are compared between tensors of one shape only; in residual networks along the "
        "trunk, from addition to addition."
    ),
    told_elsewhere=True,
)

EXPLODING = Condition(
    key="exploding",
    hypothesis="In the last recorded steps the gradients[ of {}] explode toward the input.",
    holds="the gradients explode toward the input in the last recorded steps",
    fails="the gradients do not explode in the last recorded steps",
    unknown="it cannot be told whether the gradients explode in the last recorded steps",
    contradicted_by="A factor over the depth whose interval lies below the bound.",
    next_step=(
        "Try smaller initial weights, gradient clipping, a warm-up or skips, and check again."
    ),
    to_ask="Observe at least two layers with weights: leave observe= out.",
    source=(
        "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks; "
        "Yang et al. 2019, A mean field theory of batch normalization, theorem 8"
    ),
    link="the gradients explode toward the input",
    leads_to=("non-finite", "dead", "saturated", "clipped", "not-learning"),
    read=_read_flow,
    bound="exploding",
    told_elsewhere=True,
)

SHATTERED = Condition(
    key="shattered",
    hypothesis="The gradients[ of {}] are shattered: like white noise along a line of inputs.",
    holds="the gradients are shattered",
    fails="the gradients are not shattered",
    unknown="it cannot be told whether the gradients are shattered",
    contradicted_by="An autocorrelation whose interval lies above the bound.",
    next_step="Try skips, or fewer layers, and check again.",
    to_ask="Train with gradflow train --probes shattering, or run gradflow probe on such a run.",
    source="Balduzzi et al. 2017, The shattered gradients problem",
    needed=False,
    leads_to=("not-learning",),
    read=_read_shattering,
    bound="shattered",
    method=(
        "Shattered: the gradient's autocorrelation at the smallest distance recorded along a line "
        "of inputs."
    ),
    spoils=False,
)
