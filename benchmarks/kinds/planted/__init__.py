"""Faults that are planted into healthy trainings, each with what is true of the training then."""

import random
from functools import partial

from healthy import KINDS, Maker
from healthy.generative import autoencoder
from healthy.images import unet
from healthy.sequences import recurrent
from healthy.tabular import perceptron
from healthy.text import transformer
from torch import nn
from training import Training

from planted.bugs import BUGS, bugs_of
from planted.fault import Fault
from planted.goals import GOALS
from planted.numbers import NUMBERS
from planted.probed import PROBED
from planted.wiring import WIRING

__all__ = ["BUGS", "FAULTS", "VARIANTS", "bugs_of", "maker"]

FAULTS: dict[str, Fault] = {one.key: one for one in (*WIRING, *NUMBERS, *GOALS, *PROBED)}


def _plain_and_deep(draw: random.Random) -> Training:
    activation = draw.choice([nn.ReLU, nn.Tanh])
    depth = draw.randrange(4, 8)
    return perceptron(draw, of_digits=True, depth=depth, activation=activation, plain=True)


# Variants into which a fault is planted that needs a certain layer, or depth.
VARIANTS: dict[str, Maker] = {
    "plain perceptron, deep": _plain_and_deep,
    "perceptron with ReLUs": partial(
        perceptron, of_digits=True, depth=3, activation=nn.ReLU, plain=True
    ),
    "perceptron with sigmoids": lambda draw: perceptron(
        draw,
        of_digits=True,
        depth=draw.randrange(2, 4),
        activation=draw.choice([nn.Sigmoid, nn.Tanh]),
        plain=True,
    ),
    "autoencoder with ReLUs": partial(autoencoder, activation=nn.ReLU),
    "u-net without norm": partial(unet, norm=False),
    "rnn to the end": partial(recurrent, kind="rnn", tasks=("recall", "pixels")),
    "transformer, deep": partial(transformer, pre=False, depth=18),
}


def maker(kind: str) -> Maker:
    """What draws a healthy training of `kind`, which may be one of `VARIANTS`."""
    return KINDS.get(kind) or VARIANTS[kind]
