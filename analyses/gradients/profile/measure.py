"""The gradients of all seeds of one network, by depth and epoch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.gradients.profile.theory import TheoryFactor, theory_factor
from analyses.reading.layer_gradients import (
    LayerGradients,
    layer_gradients,
    logarithm,
    pivot_by_step,
)
from analyses.statistics import Array
from analyses.statistics.means import Mean, mean_over_steps
from analyses.wording.numbers import finite
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class GradientProfile:
    """The gradients of all seeds of one network.

    Fields:
        network: its name.
        depth: number of convolutions (or linear layers) from input to output.
        seeds: one entry per run.
        overall: natural logarithm of the factor per layer, over all steps.
        weight_overall: the same for the gradients of the layers' weights.
        epochs: columns epoch, factor, low, high: the factor per layer by epoch; and weight_factor,
            the same for the weights' gradients.
        first: factor per layer at step 0, averaged over seeds (geometric); None if not recorded.
        weights: median norm of the gradient of each layer's weight, columns layer, depth, norm.
        theory: the factor that theory gives at initialization; None if no theory applies.
        start: norm at each layer at step 0, geometric mean over seeds, [layers]; None if not
            recorded.
    """

    network: str
    depth: int
    seeds: tuple[LayerGradients, ...]
    overall: Mean
    weight_overall: Mean
    epochs: pd.DataFrame
    first: float | None
    weights: pd.DataFrame
    theory: TheoryFactor | None
    start: Array | None


def gradient_profile(network: str, runs: list[Run]) -> GradientProfile:
    """Reduce the gradients of the runs of one network."""
    seeds = tuple(layer_gradients(one) for one in runs)
    starts = [one.log_factors.xs(0, level="step") for one in seeds if 0 in _steps(one)]
    initial = [float(start.iloc[0]) for start in starts if np.isfinite(start.iloc[0])]
    return GradientProfile(
        network=network,
        depth=len(seeds[0].layers),
        seeds=seeds,
        overall=mean_over_steps([one.log_factors.to_numpy() for one in seeds]),
        weight_overall=mean_over_steps([one.weight_log_factors.to_numpy() for one in seeds]),
        epochs=_by_epoch(seeds),
        first=float(np.exp(np.mean(initial))) if initial else None,
        weights=weight_gradients(runs[0], seeds[0].layers),
        theory=theory_factor(runs[0]),
        start=_first_norms(seeds),
    )


def weight_gradients(run: Run, layers: pd.DataFrame) -> pd.DataFrame:
    """Median over steps of the norm of each layer's weight gradient: columns layer, depth, norm."""
    names = layers["layer"] + ".weight"
    table = pivot_by_step(run.parameters, "gradient_norm", names, key="parameter")
    frame = layers[["layer", "depth"]].assign(norm=_medians(table))
    return frame.dropna()


def _steps(one: LayerGradients) -> pd.Index:
    return one.norms.index.get_level_values("step")


def _medians(table: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Median of each column over its finite values; NaN if there is none."""
    medians: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        table.replace([np.inf, -np.inf], np.nan).median().to_numpy(dtype=float)
    )
    return medians


def _by_epoch(seeds: tuple[LayerGradients, ...]) -> pd.DataFrame:
    outputs = _means_by_epoch([one.log_factors for one in seeds])
    weights = _means_by_epoch([one.weight_log_factors for one in seeds])
    rows = []
    for epoch, mean in outputs.items():
        row = {name: factor_of_log(getattr(mean, name)) for name in ("value", "low", "high")}
        beside = factor_of_log(weights[epoch].value) if epoch in weights else np.nan
        rows.append({"epoch": epoch, **row, "weight_factor": beside})
    return pd.DataFrame(rows).rename(columns={"value": "factor"})


def _means_by_epoch(series: list[pd.Series]) -> dict[int, Mean]:
    grouped = [dict(list(one.groupby(level="epoch"))) for one in series]
    return {
        epoch: mean_over_steps([group[epoch].to_numpy() for group in grouped if epoch in group])
        for epoch in sorted(set().union(*grouped))
    }


def _first_norms(seeds: tuple[LayerGradients, ...]) -> Array | None:
    """Norms at step 0, geometric mean over the seeds that recorded it."""
    starts = [logarithm(one.norms.xs(0, level="step")) for one in seeds if 0 in _steps(one)]
    if not starts:
        return None
    norms: Array = np.exp(np.mean([start.to_numpy()[0] for start in starts], axis=0))
    return norms


def factor_of_log(value: float | None) -> float:
    """The factor whose natural logarithm is `value`; NaN for None."""
    return float("nan") if value is None else float(np.exp(value))


def raw_ratio(one: GradientProfile) -> float | None:
    """Median norm at the first layer over that at the last, averaged over seeds (geometric)."""
    medians = [_medians(seed.norms) for seed in one.seeds]
    ratios = [row[0] / row[-1] for row in medians if row[0] > 0 and row[-1] > 0]
    return finite(float(np.exp(np.mean(np.log(ratios))))) if ratios else None


def factor_over_depth(
    one: GradientProfile, *, weights: bool = False
) -> tuple[float | None, float | None, float | None]:
    """The factor over the whole depth with its interval, or that of the weights' gradients."""
    mean = one.weight_overall if weights else one.overall
    logs = (mean.value, mean.low, mean.high)
    return tuple(None if log is None else float(np.exp(log * one.depth)) for log in logs)  # type: ignore[return-value]
