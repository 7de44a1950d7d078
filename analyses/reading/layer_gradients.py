"""Gradient norms by layer, and their factor of change per layer toward the input."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.reading.once import once_per, once_per_run
from analyses.registry import NotApplicableError
from gradflow.conditions.depth import MIN_LAYERS, log_factors
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class LayerGradients:
    """Gradients with respect to the outputs of a run's weighted layers.

    Fields:
        layers: columns layer, depth, stage, by depth.
        norms: L2 norms, one row per (epoch, step), one column per layer in the order of `layers`.
        log_factors: natural logarithm of the factor per layer toward the input, one entry per
            row of `norms`; NaN if there is none.
        nonfinite: number of steps at which the gradient of some layer was not finite.
        zeros: fraction of recorded norms that are exactly zero.
        weight_log_factors: as `log_factors`, for the gradients of the layers' weights.
    """

    layers: pd.DataFrame
    norms: pd.DataFrame
    log_factors: pd.Series
    nonfinite: int
    zeros: float
    weight_log_factors: pd.Series


def weighted_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """The convolutions outside of skips; if there are too few, the linear layers.

    Columns layer, depth, stage; sorted by depth.
    """
    for role in ("convolution", "linear"):
        chosen = layers[layers["role"] == role]
        if len(chosen) >= MIN_LAYERS:
            break
    ordered: pd.DataFrame = chosen.sort_values("depth", kind="stable")
    return ordered[["layer", "depth", "stage"]].reset_index(drop=True)


def pivot_by_step(
    frame: pd.DataFrame, quantity: str, names: pd.Series, key: str = "layer"
) -> pd.DataFrame:
    """One row per (epoch, step), one column per name, in the order of `names`."""
    known = pd.Index(names).unique()
    codes, found = names_of(frame, key)
    places = np.append(known.get_indexer(found), -1)[codes]  # -1 for other and missing names
    rows = places >= 0
    step_of_row, steps = steps_of(frame)
    step_of_row = step_of_row[rows]
    present = np.zeros(len(steps), dtype=bool)
    present[step_of_row] = True
    values = np.full((len(known), int(present.sum())), np.nan)
    # Of several values for one place the last one stays.
    columns = (present.cumsum() - 1)[step_of_row]
    values[places[rows], columns] = frame[quantity].to_numpy(float)[rows]
    table = pd.DataFrame(values.T, index=steps[present], columns=known.rename(key))
    return table.reindex(columns=list(names))


@once_per
def names_of(frame: pd.DataFrame, key: str) -> tuple[NDArray[np.int64], pd.Index]:
    """The place of each row's name in the column `key`, -1 if it is missing, and these names."""
    codes, names = pd.factorize(frame[key])
    return codes, names


@once_per
def steps_of(frame: pd.DataFrame) -> tuple[NDArray[np.int64], pd.Index]:
    """The place of each row's step, and all steps as (epoch, step), ascending."""
    keys = frame[["epoch", "step"]]
    # A step has many rows one after another: one of them is looked at.
    epoch, step = keys["epoch"].to_numpy(), keys["step"].to_numpy()
    first = np.ones(len(keys), dtype=bool)
    first[1:] = (epoch[1:] != epoch[:-1]) | (step[1:] != step[:-1])
    by_step = keys[first].groupby(["epoch", "step"], sort=True, dropna=False)
    return by_step.ngroup().to_numpy()[first.cumsum() - 1], by_step.size().index


def logarithm(values: pd.DataFrame) -> pd.DataFrame:
    """Natural logarithm; NaN if a value is not finite or not positive."""
    array = values.to_numpy(dtype=float)
    usable = np.where(np.isfinite(array) & (array > 0), array, np.nan)
    return pd.DataFrame(np.log(usable), index=values.index, columns=values.columns)


@once_per_run
def layer_gradients(run: Run) -> LayerGradients:
    """The gradients of `run` at its weighted layers.

    Raises `NotApplicableError` if there are fewer than two such layers, or no gradients.
    """
    layers = weighted_layers(run.layers)
    if len(layers) < 2:
        raise NotApplicableError(
            f"{run.name} has {len(layers)} convolutions or linear layers in its table of layers; "
            "a profile over depth needs at least two"
        )
    rows = run.gradients
    norms = pivot_by_step(rows, "norm", layers["layer"])
    if norms.empty:
        raise NotApplicableError(
            f"{run.name} recorded no gradient at a convolution or linear layer"
        )
    flagged = rows[(rows["nonfinite"] > 0) | np.isinf(rows["norm"].astype(float))]
    flagged = flagged[flagged["layer"].isin(layers["layer"])]
    slopes = log_factors(
        logarithm(norms).to_numpy(),
        layers["depth"].to_numpy(dtype=float),
        layers["stage"].to_numpy(dtype=float),
    )
    recorded = norms.notna().to_numpy().sum()
    zeros = float((norms == 0).to_numpy().sum() / recorded) if recorded else 0.0
    return LayerGradients(
        layers=layers,
        norms=norms,
        log_factors=pd.Series(slopes, index=norms.index),
        nonfinite=int(flagged["step"].nunique()),
        zeros=zeros,
        weight_log_factors=_weight_log_factors(run, layers),
    )


def _weight_log_factors(run: Run, layers: pd.DataFrame) -> pd.Series:
    names = layers["layer"] + ".weight"
    norms = pivot_by_step(run.parameters, "gradient_norm", names, key="parameter")
    slopes = log_factors(
        logarithm(norms).to_numpy(),
        layers["depth"].to_numpy(dtype=float),
        layers["stage"].to_numpy(dtype=float),
    )
    return pd.Series(slopes, index=norms.index)


def medians_by_epoch(tables: list[pd.DataFrame], depth: pd.Series) -> pd.DataFrame:
    """Median over steps and seeds of tables by `pivot_by_step`: rows depth, columns epoch.

    `depth` holds the depth of each layer, in the order of the tables' columns.
    """
    pooled = pd.concat(tables).replace([np.inf, -np.inf], np.nan)
    by_epoch: pd.DataFrame = pooled.groupby(level="epoch").median().T
    by_epoch.index = pd.Index(depth.to_numpy())
    return by_epoch
