"""Kinds of models and data that people train; each a function that draws a healthy training."""

import random
from collections.abc import Callable
from functools import partial

from training import Training

from healthy.generative import autoencoder, gan, variational
from healthy.images import mobilenet, patches, resnet, unet
from healthy.sequences import recurrent
from healthy.tabular import graph, perceptron
from healthy.text import embeddings, experts, low_rank, transformer

Maker = Callable[[random.Random], Training]

KINDS: dict[str, Maker] = {
    "transformer, pre-norm": partial(transformer, pre=True),
    "transformer, post-norm": partial(transformer, pre=False),
    "experts": experts,
    "low-rank adapters": low_rank,
    "embeddings": embeddings,
    "lstm": partial(recurrent, kind="lstm"),
    "gru": partial(recurrent, kind="gru"),
    "rnn": partial(recurrent, kind="rnn"),
    "resnet": resnet,
    "mobilenet": mobilenet,
    "u-net": unet,
    "vision transformer": partial(patches, mixer=False),
    "mixer": partial(patches, mixer=True),
    "autoencoder": autoencoder,
    "variational autoencoder": variational,
    "gan": gan,
    "graph network": graph,
    "perceptron, tables": partial(perceptron, of_digits=False),
    "perceptron, digits": partial(perceptron, of_digits=True),
}
