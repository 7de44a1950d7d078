"""Quantities of a run by epoch, to correlate with its changes of accuracy."""

import numpy as np
import pandas as pd

from analyses.reading.layer_gradients import layer_gradients, logarithm
from analyses.reading.options import rows_of_whole_rounds
from analyses.registry import NotApplicableError
from analyses.wording.translatable import message
from gradflow.runs.reading.run import Run


def epoch_quantities(run: Run) -> pd.DataFrame:
    """One row per epoch, one column per quantity that `run` recorded.

    Norms and ratios are logarithms of medians over the epoch's steps:
        gradient at the first layer: norm with respect to its output.
        factor per layer: mean log factor of the gradient norm per layer toward the input.
        gradient of all parameters: L2 norm over all of them.
        update to weight: median over parameters and steps. If updates are measured in turns, over
            the rounds of turns that end in the epoch, in which each parameter had one.
        share of the skips: mean over blocks of the median over steps, without logarithm.
    """
    columns = {**_of_layers(run), **_of_parameters(run)}
    if len(run.junctions):
        by_block = run.junctions.groupby(["epoch", "layer"])["skip_share"].median()
        columns[message("share of the skips")] = by_block.groupby(level="epoch").mean()
    frame = pd.DataFrame(columns).sort_index().replace([np.inf, -np.inf], np.nan)
    return frame.dropna(axis=1, how="all")


def staleness(run: Run) -> pd.DataFrame:
    """How stale the running statistics of batch normalization are, one row per epoch.

    Logarithms of medians over layers: "shift of the means" and "shift of the variances", the
    columns mean_shift and variance_shift. No columns if the run recorded neither.
    """
    rows = run.table("batchnorm_staleness")
    if not len(rows):
        return pd.DataFrame()
    shifts = rows.groupby("epoch")[["mean_shift", "variance_shift"]].median()
    names = {
        "mean_shift": message("shift of the means"),
        "variance_shift": message("shift of the variances"),
    }
    return logarithm(shifts.rename(columns=names)).replace([np.inf, -np.inf], np.nan)


def _of_layers(run: Run) -> dict[str, pd.Series]:
    if not len(run.gradients):
        return {}
    try:
        gradients = layer_gradients(run)
    except NotApplicableError:  # too few layers with weights; other quantities are kept
        return {}
    first = gradients.norms.iloc[:, [0]].groupby(level="epoch").median()
    return {
        message("gradient at the first layer"): logarithm(first).iloc[:, 0],
        message("factor per layer"): gradients.log_factors.groupby(level="epoch").mean(),
    }


def _of_parameters(run: Run) -> dict[str, pd.Series]:
    if not len(run.parameters):
        return {}
    updates = rows_of_whole_rounds(run)
    # Without `parameters_every`, each step has the gradients of all parameters.
    in_turns = "parameters_every" in run.description
    gradients = updates if in_turns else run.parameters.assign(time=run.parameters["step"])
    squares = gradients.assign(square=gradients["gradient_norm"].astype(float) ** 2)
    total = squares.groupby(["epoch", "time"])["square"].sum(min_count=1) ** 0.5
    medians = pd.DataFrame(
        {
            message("gradient of all parameters"): total.groupby(level="epoch").median(),
            message("update to weight"): updates.groupby("epoch")["update_to_weight"].median(),
        }
    )
    logs = logarithm(medians)
    return {str(name): logs[name] for name in logs.columns}
