"""Possible reasons why one network is better than another, each measured in one run.

Each is one number per step or epoch of a run. Ratios are natural logarithms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.gradients.signals import dead_fraction
from analyses.reading.layer_gradients import layer_gradients, logarithm, pivot_by_step
from analyses.reading.options import rounds_of_turns, turns_of_updates
from analyses.registry import NotApplicableError
from analyses.skips.path_lengths import PATHS, by_length, weighted_length
from analyses.statistics import Array
from analyses.wording.translatable import message
from gradflow.runs.reading.run import Run

WHOLE_MODEL = "(model)"


@dataclass(frozen=True)
class PossibleReason:
    """One explanation of a difference in accuracy that can be measured.

    Fields:
        key: letters, digits and hyphens.
        name: a few words.
        unit: unit of the number; "" for a pure number.
        over: step or epoch, whichever the series has one value for.
        logarithmic: whether the series holds natural logarithms.
        margin: a smaller difference between networks does not count; in the unit of the series
            (for logarithms: the logarithm of a factor).
        definition: how it is computed, as the report says it.
        measure: the finite values of a run, shape [steps] or [epochs]; empty if the run did
            not record what it needs.
    """

    key: str
    name: str
    unit: str
    over: str
    logarithmic: bool
    margin: float
    definition: str
    measure: Callable[[Run], Array]

    def shown(self, value: float) -> float:
        """`value` as the report shows it: a logarithm becomes a factor."""
        if not self.logarithmic:
            return float(value)
        with np.errstate(over="ignore"):
            return float(np.exp(value))


def factor_per_layer(run: Run) -> Array:
    """Log factor of the gradient norm per layer toward the input, at each step."""
    if not (len(run.gradients) and len(run.layers)):
        return np.empty(0)
    try:
        return _finite(layer_gradients(run).log_factors)
    except NotApplicableError:  # too few layers with weights
        return np.empty(0)


def coherence(run: Run) -> Array:
    """Mean pairwise cosine of the gradients of single images, all parameters, at each epoch."""
    rows = run.table("gradient_coherence")
    return _finite(rows.loc[rows["layer"] == WHOLE_MODEL, "mean_cosine"])


def update_to_weight(run: Run) -> Array:
    """Logarithm of the median update-to-weight ratio over parameters, at each step.

    If updates are measured in turns, at each time when every parameter has had one.
    """
    rows, turns = run.parameters, turns_of_updates(run)
    if turns == 1:
        medians = rows.groupby(["epoch", "step"])[["update_to_weight"]].median()
    else:
        medians = rows.groupby(rounds_of_turns(run))[["update_to_weight"]].median()
    return _finite(logarithm(medians).iloc[:, 0])


def dead_channels(run: Run) -> Array:
    """Share of the channels after a nonlinearity that are zero on the batch, at each step."""
    if not (len(run.activations) and len(run.layers)):
        return np.empty(0)
    return _finite(dead_fraction(run))


def staleness(run: Run) -> Array:
    """Shift of the running means, in standard deviations, mean over layers, at each epoch."""
    return _finite(run.table("batchnorm_staleness").groupby("epoch")["mean_shift"].mean())


def variance_spread(run: Run) -> Array:
    """Standard deviation over convolutions of ln(channel variance), at each step."""
    if not (len(run.activations) and len(run.layers)):
        return np.empty(0)
    names = run.layers.loc[run.layers["role"] == "convolution", "layer"]
    logs = logarithm(pivot_by_step(run.activations, "channel_variance", names))
    return _finite(logs.std(axis=1, ddof=0))


def path_length(run: Run) -> Array:
    """Mean path length, weighted by the share of the gradient, at each epoch."""
    if not len(run.table(PATHS)):
        return np.empty(0)
    return _finite(weighted_length(by_length(run, "share")))


def noise_scale(run: Run) -> Array:
    """Logarithm of B_simple = mean S / mean |G|^2 over draws, at each epoch where both are > 0."""
    means = run.table("noise_scale").groupby("epoch")[["noise", "squared_gradient"]].mean()
    means = means[(means > 0).all(axis=1)].astype(float)
    return _finite(np.log(means["noise"] / means["squared_gradient"]))


def _finite(series: pd.Series) -> Array:
    values = series.to_numpy(dtype=float)
    finite: Array = values[np.isfinite(values)]
    return finite


STALENESS = "staleness"
PATH_LENGTH = "path-length"
PROFILE = "norm-profile"

POSSIBLE_REASONS = (
    PossibleReason(
        PROFILE, message("gradient norm per layer"), "", "step", True, np.log(1.01),
        "factor by which the gradient norm changes per layer toward the input, at equal shape",
        factor_per_layer,
    ),
    PossibleReason(
        "coherence", message("gradient coherence"), "", "epoch", False, 0.02,
        "mean pairwise cosine of the gradients of single images, all parameters", coherence,
    ),
    PossibleReason(
        "update-to-weight", message("update-to-weight ratio"), "", "step", True, np.log(1.1),
        "median over parameters of |update| / |weight|", update_to_weight,
    ),
    PossibleReason(
        "dead-units", message("share of dead channels"), "", "step", False, 0.01,
        "channels after a nonlinearity that are zero on the whole batch, over all of them",
        dead_channels,
    ),
    PossibleReason(
        STALENESS, message("staleness of batch-norm statistics"), "std", "epoch", False, 0.05,
        "root mean square shift of the running means, in standard deviations, mean over layers",
        staleness,
    ),
    PossibleReason(
        "variance-spread", message("spread of channel variance"), "", "step", False, 0.1,
        "standard deviation over convolutions of the natural logarithm of channel variance",
        variance_spread,
    ),
    PossibleReason(
        PATH_LENGTH, message("effective path length"), "branches", "epoch", False, 1.0,
        "mean number of branches weighted by the gradient's share; in a plain network all blocks, "
        "by construction",
        path_length,
    ),
    PossibleReason(
        "noise-scale", message("gradient noise scale"), "images", "epoch", True, np.log(1.5),
        "B_simple = S / |G|^2, S and |G|^2 averaged over draws", noise_scale,
    ),
)  # fmt: skip
