"""Signals of a pre-activation residual network with batch normalization at initialization."""

import functools

import pandas as pd
import torch
from torch import nn

from analyses.statistics import theory
from published.networks import PreactivationBlock, convolution
from published.recording import record
from published.rows import Item, Tolerance, compare

NETS = 20
CHANNELS = 64
BLOCKS = 5
TRANSITION = f"block{BLOCKS}"
WIDE = Tolerance(relative=0.02, errors=4)
SETTING = f"{NETS} nets, {CHANNELS} channels, 8 noise images of 16x16, blocks l = 0, 1, ..."


def branch_item() -> Item:
    """The share of the branch in each sum, of mean squares and of channel variances."""
    nets = _record_nets()
    rows = []
    for block in range(BLOCKS):
        shares = [_share(net[0], block) for net in nets]
        name = f"mean square, l={block}"
        rows.append(compare(name, theory.branch_share(block), shares, WIDE))
    for block in range(BLOCKS):
        shares = [_centred_share(net[1], block) for net in nets]
        name = f"channel variance, l={block}"
        rows.append(compare(name, theory.centred_branch_share(block), shares, WIDE))
    return Item(
        paper="5  De & Smith 2020: share of the branch in skip + branch, with BN",
        setting=SETTING,
        tolerance=str(WIDE),
        rows=tuple(rows),
    )


def signal_item() -> Item:
    """Channel squared mean and channel variance after blocks, and after a transition."""
    nets = _record_nets()
    predictions = [
        (f"block{block}", f"l={block}", theory.preactivation_signal(block))
        for block in range(BLOCKS)
    ]
    predictions.append((TRANSITION, "transition", theory.transition_signal()))
    rows = []
    for place, column in enumerate(("channel_squared_mean", "channel_variance")):
        for layer, words, predicted in predictions:
            values = [float(net[0].loc[layer, column]) for net in nets]
            name = f"{column.replace('_', ' ')}, {words}"
            rows.append(compare(name, predicted[place], values, WIDE))
    return Item(
        paper="10 Brock et al. 2021: signals after the addition, pre-activation, BN",
        setting=SETTING,
        tolerance=str(WIDE),
        rows=tuple(rows),
    )


def _share(activations: pd.DataFrame, block: int) -> float:
    before = "stem" if block == 0 else f"block{block - 1}"
    branch = activations.loc[f"block{block}.conv2", "rms"] ** 2
    return float(branch / (branch + activations.loc[before, "rms"] ** 2))


def _centred_share(junctions: pd.DataFrame, block: int) -> float:
    row = junctions.loc[f"block{block}"]
    return float(row["branch_variance"] / (row["branch_variance"] + row["skip_variance"]))


@functools.cache
def _record_nets() -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Activations and residual additions of each network, by layer."""
    nets = []
    for seed in range(NETS):
        torch.manual_seed(seed)
        model = nn.Sequential()
        model.add_module("stem", convolution(3, CHANNELS, gain=1.0))
        for block in range(BLOCKS + 1):
            transition = f"block{block}" == TRANSITION
            model.add_module(f"block{block}", PreactivationBlock(CHANNELS, transition=transition))
        x = torch.randn(8, 3, 16, 16)
        losses = (model(x).square().mean() for _ in range(1))
        activations, junctions = record(model, losses, "activations", "junctions")
        nets.append((activations.set_index("layer"), junctions.set_index("layer")))
    return nets
