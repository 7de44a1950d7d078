"""The effect of He's and PyTorch's initial weights on squared norms through ReLU layers."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import nn

from analyses.statistics import theory
from published.networks import Together, plain_net
from published.recording import record
from published.rows import Item, Row, Tolerance, compare

NETS = 300
DEFAULT_NETS = 60
TOGETHER = 30
"""Networks recorded in one run."""
WIDTH = 256
DEPTH = 10
MEAN = Tolerance(errors=4)
FACTOR = Tolerance(relative=0.01, errors=4)
DEVIATION = Tolerance(relative=0.03, errors=4)


def item() -> Item:
    """He's weights keep squared norms, with Hanin's spread; the default's keep a sixth a layer."""
    he = _squared_norms(theory.HE_GAIN, NETS)
    default = _squared_norms(theory.PYTORCH_DEFAULT_GAIN, DEFAULT_NETS)
    rows: list[Row] = []
    for way in ("activations", "gradients"):
        ratios = [_whole_ratio(net[way]) for net in he]
        steps = len(he[0][way]) - 1
        rows.append(compare(f"He, {way}, all layers", 1.0, ratios, MEAN))
        predicted = theory.he_log_deviation(steps, WIDTH)
        rows.append(_deviation(f"He, {way}, std of ln", predicted, np.log(ratios)))
        factors = [_layer_factor(net[way]) for net in default]
        name = f"default, {way}, per layer"
        kept = theory.relu_growth(theory.PYTORCH_DEFAULT_GAIN)
        rows.append(compare(name, kept, factors, FACTOR))
    return Item(
        paper="6  He et al. 2015b, Hanin 2018: squared norms through ReLU layers",
        setting=(
            f"{NETS} nets (default: {DEFAULT_NETS}), one sample, {DEPTH} layers of width {WIDTH}, "
            "no bias"
        ),
        tolerance=f"{MEAN}; default + 1%, std + 3% for finite width",
        rows=tuple(rows),
    )


def _squared_norms(gain: float, nets: int) -> list[dict[str, "pd.Series[float]"]]:
    """The squared norms of each network's activations and gradients, in order of computation."""
    forward = ["input", *(f"activation{level}" for level in range(1, DEPTH + 1))]
    backward = [f"linear{level}" for level in range(DEPTH, 0, -1)]
    results = []
    for seed in range(nets // TOGETHER):
        torch.manual_seed(seed)
        model = Together(plain_net(WIDTH, DEPTH, gain=gain) for _ in range(TOGETHER))
        x = torch.randn(TOGETHER, 1, WIDTH)
        losses = (model(x).sum() for _ in range(1))
        tables = record(model, losses, "activations", "gradients", observe=nn.Module)
        activations, gradients = (table.set_index("layer")["norm"] ** 2 for table in tables)
        for net in range(TOGETHER):
            results.append(
                {
                    "activations": activations[[f"{net}.{layer}" for layer in forward]],
                    "gradients": gradients[[f"{net}.{layer}" for layer in backward]],
                }
            )
    return results


def _whole_ratio(squared: "pd.Series[float]") -> float:
    return float(squared.iloc[-1] / squared.iloc[0])


def _layer_factor(squared: "pd.Series[float]") -> float:
    """The mean factor over layers. The mean of the logs would be biased by their spread."""
    return float(np.mean([after / before for before, after in pairwise(squared)]))


def _deviation(name: str, predicted: float, logs: np.ndarray) -> Row:
    """A row for a standard deviation over networks; its standard error is s / sqrt(2 (n - 1))."""
    measured = float(np.std(logs, ddof=1))
    error = measured / math.sqrt(2 * (len(logs) - 1))
    return Row(name, predicted, measured, error, DEVIATION.width(predicted, error))
