"""Weight gradients that look flat while back-propagated gradients vanish."""

import math

import torch
from torch import nn

from published import formulas
from published.networks import plain_net
from published.recording import record
from published.rows import Item, Tolerance, compare

NETS = 40
WIDTH = 256
DEPTH = 10
SAMPLES = 64
INPUT_SCALE = 0.03
"""Small enough that tanh is its argument, to a part in a thousand."""
MEAN = Tolerance(errors=4, absolute=0.02)


def item() -> Item:
    """First layer over last, both kinds of gradient from the same backward pass."""
    backpropagated, weights = zip(*(_ratios(seed) for seed in range(NETS)), strict=True)
    predicted = (DEPTH - 1) * math.log10(formulas.DEFAULT_LINEAR_FACTOR)
    return Item(
        paper="7  Glorot & Bengio 2010: variances of gradients, first / last layer",
        setting=f"{NETS} nets, {DEPTH} tanh layers of width {WIDTH}, {SAMPLES} samples, Var W=1/3n",
        tolerance=str(MEAN),
        rows=(
            compare("log10, back-propagated", predicted, backpropagated, MEAN),
            compare("log10, with respect to weights", 0.0, weights, MEAN),
        ),
    )


def _ratios(seed: int) -> tuple[float, float]:
    """log10 of the ratio of mean squares, of gradients at pre-activations and at weights."""
    torch.manual_seed(seed)
    model = plain_net(
        WIDTH,
        DEPTH,
        gain=formulas.DEFAULT_LINEAR_FACTOR,
        activation=nn.Tanh,
        outputs=WIDTH,
    )
    x, y = INPUT_SCALE * torch.randn(SAMPLES, WIDTH), torch.randn(SAMPLES, WIDTH)
    losses = ((model(x) * y).sum() for _ in range(1))
    gradients, parameters = record(model, losses, "gradients", "parameters")
    signals = gradients.set_index("layer")["rms"]
    weights = parameters.set_index("parameter")["gradient_norm"]
    first, last = "linear1", f"linear{DEPTH}"
    return (
        2 * math.log10(signals[first] / signals[last]),
        2 * math.log10(weights[f"{first}.weight"] / weights[f"{last}.weight"]),
    )
