"""Functions that make healthy networks, some of which look ill at first glance; see `HEALTHY`."""

import math
import random
from collections.abc import Callable
from functools import partial

import torch
from planted_networks import (
    Case,
    adam,
    any_optimizer,
    convnet,
    glorot,
    he,
    mlp,
    pre_norm_net,
    residual_convnet,
    residual_net,
    sgd,
)
from torch import nn

Maker = Callable[[random.Random], Case]
WIDTHS = (32, 48, 64, 96)


def he_relu(draw: random.Random) -> Case:
    """ReLU, He's weights: factor 1 a layer; widths well above the depth keep the spread small."""
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 9), he, nn.ReLU)
    return Case("healthy", "ReLU, He", model, optimizer=any_optimizer(draw))


def he_pyramid(draw: random.Random) -> Case:
    """ReLU, He's weights, layers of different widths: factor 1 a layer."""
    widths = sorted(draw.sample(range(16, 129, 8), draw.randrange(3, 7)), reverse=True)
    return Case("healthy", "ReLU, He, a pyramid", mlp(widths, he, nn.ReLU))


def batch_norm(draw: random.Random) -> Case:
    """Batch norm: 1.21 a layer toward the input, 9.8 over twelve (Yang et al. 2019)."""
    width = draw.choice(WIDTHS)
    model = mlp([width] * draw.randrange(2, 11), he, nn.ReLU, nn.BatchNorm1d)
    return Case("healthy", "batch norm", model, optimizer=any_optimizer(draw))


def batch_norm_convolutions(draw: random.Random) -> Case:
    """Convolutions with batch norm, no deeper than eight."""
    channels = [draw.choice([8, 12, 16])] * draw.randrange(2, 9)
    model = convnet(channels, he, norm=True)
    return Case("healthy", "batch norm, convolutions", model, True, any_optimizer(draw))


def he_convolutions(draw: random.Random, *, pool: type[nn.Module] | None) -> Case:
    """Convolutions, He's weights, with or without pooling after the second and fourth."""
    channels = [draw.choice([12, 16])] * draw.randrange(2, 6)
    model = convnet(
        channels, he, pools=lambda place: pool(2) if pool is not None and place in (1, 3) else None
    )
    name = "" if pool is None else f", {pool.__name__}"
    return Case("healthy", f"convolutions, He{name}", model, images=True)


def residual(draw: random.Random, *, zero_gamma: bool) -> Case:
    """Residual blocks with batch norm; with zero gamma each branch starts closed (case 7)."""
    model = residual_net(draw.randrange(2, 9), draw.choice(WIDTHS), zero_gamma=zero_gamma)
    name = "residual, zero gamma" if zero_gamma else "residual"
    return Case("healthy", name, model, optimizer=any_optimizer(draw))


def residual_convolutions(draw: random.Random, *, zero_gamma: bool) -> Case:
    """The same with convolutions."""
    model = residual_convnet(draw.randrange(2, 5), draw.choice([8, 12]), zero_gamma=zero_gamma)
    name = "residual convolutions, zero gamma" if zero_gamma else "residual convolutions"
    return Case("healthy", name, model, True, any_optimizer(draw))


def warm_up(draw: random.Random) -> Case:
    """The learning rate rises from zero over the whole run."""
    norm = draw.choice([None, nn.BatchNorm1d])
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 7), he, nn.ReLU, norm)
    return Case("healthy", "warm-up", model, optimizer=any_optimizer(draw), rate=lambda t: t**2)


def annealed(draw: random.Random) -> Case:
    """The learning rate falls to zero along a cosine."""
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 7), he, nn.ReLU)
    make = any_optimizer(draw)
    return Case(
        "healthy", "annealed", model, optimizer=make, rate=lambda t: (1 + math.cos(math.pi * t)) / 2
    )


def layer_norm(draw: random.Random) -> Case:
    """Layer norm before each ReLU or GELU."""
    activation = draw.choice([nn.ReLU, nn.GELU])
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 9), he, activation, nn.LayerNorm)
    return Case("healthy", "layer norm", model, optimizer=any_optimizer(draw))


def pre_norm(draw: random.Random) -> Case:
    """Residual blocks with the norm on the branch, as in a transformer."""
    model = pre_norm_net(draw.randrange(2, 7), draw.choice([32, 48]))
    return Case("healthy", "residual, layer norm first", model, optimizer=adam(1e-3, 0.01))


def tanh_glorot(draw: random.Random) -> Case:
    """Tanh, Glorot's weights, no deeper than six."""
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 7), glorot, nn.Tanh)
    return Case("healthy", "tanh, Glorot", model, optimizer=any_optimizer(draw))


def sigmoid_shallow(draw: random.Random) -> Case:
    """One sigmoid layer: a factor of at most 4, and only one layer deep."""
    model = mlp([draw.choice(WIDTHS)], glorot, nn.Sigmoid)
    return Case("healthy", "sigmoid, shallow", model, optimizer=any_optimizer(draw))


def small_last_layer(draw: random.Random) -> Case:
    """A classifier that starts a hundredfold smaller: all gradients before it shrink alike."""
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 7), he, nn.ReLU)
    with torch.no_grad():
        model[-1].weight *= 0.01
    return Case("healthy", "small last layer", model, optimizer=any_optimizer(draw))


def frozen(draw: random.Random) -> Case:
    """The first half frozen."""
    depth = draw.randrange(4, 8)
    model = mlp([draw.choice(WIDTHS)] * depth, he, nn.ReLU)
    make = draw.choice([adam(1e-3), sgd(0.01)])
    for weight in model[:depth].parameters():
        weight.requires_grad_(False)
    return Case("healthy", "half frozen", model, optimizer=make)


def shallow_lines(draw: random.Random) -> Case:
    """At most three layers: the gradient along a line of inputs stays correlated."""
    norm = draw.choice([None, nn.BatchNorm1d])
    model = mlp([96] * draw.randrange(1, 4), he, nn.ReLU, norm)
    return Case("healthy", "shallow, lines of inputs", model, optimizer=adam(), shattering=True)


HEALTHY: list[Maker] = [
    he_relu,
    he_pyramid,
    batch_norm,
    batch_norm_convolutions,
    partial(he_convolutions, pool=None),
    partial(he_convolutions, pool=nn.MaxPool2d),
    partial(he_convolutions, pool=nn.AvgPool2d),
    partial(residual, zero_gamma=False),
    partial(residual, zero_gamma=True),
    partial(residual_convolutions, zero_gamma=False),
    partial(residual_convolutions, zero_gamma=True),
    warm_up,
    annealed,
    layer_norm,
    pre_norm,
    tanh_glorot,
    sigmoid_shallow,
    small_last_layer,
    frozen,
    shallow_lines,
]
