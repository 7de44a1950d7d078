"""The factor of the gradient norm that theory gives for a recorded network at initialization."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.statistics.theory import (
    PYTORCH_DEFAULT_GAIN,
    batchnorm_growth,
    relu_growth,
)
from analyses.wording.numbers import number
from gradflow.runs.reading.run import Run

DEFAULT_GAIN_TOLERANCE = 0.1  # relative


@dataclass(frozen=True)
class TheoryFactor:
    """The factor of the gradient norm per layer toward the input that theory gives.

    Fields:
        factor: factor of the L2 norm of the gradient with respect to a layer's output.
        name: a few words, for legends and tables.
        validity: the networks that it holds for, as a sentence.
        plain: whether the network is plain; the factor was derived for plain networks.
    """

    factor: float
    name: str
    validity: str
    plain: bool


def theory_factor(run: Run) -> TheoryFactor | None:
    """The factor that theory gives for `run` at initialization; None if neither theory applies.

    With batch normalization it is the mean-field factor at the run's batch size. In a plain ReLU
    network without any normalization, whose weights were recorded at step 0, it follows from these
    weights: sqrt(g / 2) with g = |W|^2 / outputs = inputs * mean(W^2). This is sqrt(1/6) at
    PyTorch's default initialization and 1 at He's.
    """
    layers = run.layers
    plain = not len(run.junctions)
    if layers["type"].str.contains("BatchNorm").any():
        batch = float(run.gradients["batch_size"].max())
        if not batch > 3:
            return None
        return TheoryFactor(
            batchnorm_growth(batch) ** 0.5,
            "mean field of batch norm",
            "The mean-field value of batch normalization is derived for wide, fully connected "
            "plain networks at initialization (Yang et al. 2019); for convolutions, whose "
            "statistics also run over positions, and for residual networks it is a landmark only.",
            plain,
        )
    others = layers.loc[layers["role"] == "activation", "type"]
    if not plain or (layers["role"] == "normalization").any() or set(others) != {"ReLU"}:
        return None
    gain = initial_gain(run)
    if gain is None:
        return None
    default = abs(gain / PYTORCH_DEFAULT_GAIN - 1) < DEFAULT_GAIN_TOLERANCE
    return TheoryFactor(
        relu_growth(gain) ** 0.5,
        "PyTorch's default initialization" if default else "the initial weights",
        f"The factor from the initial weights, sqrt(g / 2) with g = {number(gain)} the mean of "
        "inputs times squared weight (1/3 at PyTorch's default initialization, 2 at He's), is "
        "derived for wide plain ReLU networks without normalization (He et al. 2015, Delving deep "
        "into rectifiers); borders of convolutions make it a little smaller.",
        plain,
    )


def initial_gain(run: Run) -> float | None:
    """Inputs of a unit times the mean squared weight at step 0, geometric mean over inner layers.

    The first and the last layer with weights are left out: the factor is that between layers. None
    if step 0 was not recorded, or fewer than three layers.
    """
    weights = run.layers[run.layers["role"].isin(["convolution", "linear"])]
    weights = weights.drop_duplicates("layer").sort_values("depth", kind="stable").iloc[1:-1]
    first = run.parameters[run.parameters["step"] == 0].set_index("parameter")["weight_norm"]
    names = weights["layer"] + ".weight"
    known = names.isin(first.index).to_numpy()
    if not known.any():
        return None
    parts = weights["shape"].str.split("x")
    is_convolution = weights["role"] == "convolution"
    outputs = pd.to_numeric(parts.str[0].where(is_convolution, parts.str[-1])).to_numpy(dtype=float)
    squares = first.loc[names[known]].to_numpy(dtype=float) ** 2
    positive = squares > 0
    if not positive.any():
        return None
    return float(np.exp(np.mean(np.log(squares[positive] / outputs[known][positive]))))
