"""Weight gradients that look flat while back-propagated gradients vanish."""

import math

import torch
from torch import nn

from analyses.statistics import theory
from published.networks import Together, plain_net
from published.recording import record
from published.rows import Item, Tolerance, compare

NETS = 40
TOGETHER = 10
"""Networks recorded in one run."""
WIDTH = 256
DEPTH = 10
SAMPLES = 64
INPUT_SCALE = 0.03
"""Small enough that tanh is its argument, to a part in a thousand."""
MEAN = Tolerance(errors=4, absolute=0.02)


def item() -> Item:
    """The ratio of first to last layer, for both kinds of gradient from one backward pass."""
    backpropagated, weights = zip(
        *(ratios for seed in range(NETS // TOGETHER) for ratios in _ratios(seed)), strict=True
    )
    predicted = (DEPTH - 1) * math.log10(theory.PYTORCH_DEFAULT_GAIN)
    return Item(
        paper="7  Glorot & Bengio 2010: variances of gradients, first / last layer",
        setting=f"{NETS} nets, {DEPTH} tanh layers of width {WIDTH}, {SAMPLES} samples, Var W=1/3n",
        tolerance=str(MEAN),
        rows=(
            compare("log10, back-propagated", predicted, backpropagated, MEAN),
            compare("log10, with respect to weights", 0.0, weights, MEAN),
        ),
    )


def _ratios(seed: int) -> list[tuple[float, float]]:
    """log10 of the ratio of mean squares, of gradients at pre-activations and at weights."""
    torch.manual_seed(seed)
    gain = theory.PYTORCH_DEFAULT_GAIN
    nets = Together(
        plain_net(WIDTH, DEPTH, gain=gain, activation=nn.Tanh, outputs=WIDTH)
        for _ in range(TOGETHER)
    )
    x = INPUT_SCALE * torch.randn(TOGETHER, SAMPLES, WIDTH)
    y = torch.randn(TOGETHER, SAMPLES, WIDTH)
    losses = ((nets(x) * y).sum() for _ in range(1))
    gradients, parameters = record(nets, losses, "gradients", "parameters")
    signals = gradients.set_index("layer")["rms"]
    weights = parameters.set_index("parameter")["gradient_norm"]
    ratios = []
    for net in range(TOGETHER):
        first, last = f"{net}.linear1", f"{net}.linear{DEPTH}"
        backpropagated = 2 * math.log10(signals[first] / signals[last])
        at_weights = 2 * math.log10(weights[f"{first}.weight"] / weights[f"{last}.weight"])
        ratios.append((backpropagated, at_weights))
    return ratios
