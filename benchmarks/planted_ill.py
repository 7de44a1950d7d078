"""Functions that make ill networks, each with one condition by construction; see `FAULTS`."""

import random
from collections.abc import Callable
from functools import partial

import torch
from planted_networks import (
    Case,
    adam,
    convnet,
    depth_for,
    glorot,
    he,
    mlp,
    pytorch_factor,
    scaled,
    sgd,
)
from torch import Tensor, nn

Maker = Callable[[random.Random], Case]
WIDTHS = (32, 48, 64, 96)


def vanishing_sigmoid(draw: random.Random) -> Case:
    """Glorot's weights with sigmoids, whose derivative is at most 1/4: at most 1/4 a layer."""
    depth = depth_for(0.25, draw)
    return Case(
        "vanishing", "sigmoid, Glorot", mlp([draw.choice(WIDTHS)] * depth, glorot, nn.Sigmoid)
    )


def vanishing_small(draw: random.Random) -> Case:
    """ReLU with He's weights times s: exactly s a layer in the mean."""
    factor = draw.choice([0.1, 0.2, 0.3, 0.5])
    model = mlp(
        [draw.choice(WIDTHS)] * depth_for(factor, draw),
        partial(scaled, gain=2 * factor**2),
        nn.ReLU,
    )
    return Case("vanishing", "ReLU, small weights", model)


def vanishing_default(draw: random.Random) -> Case:
    """PyTorch's default initialization with ReLU: sqrt(1/6) a layer."""
    depth = depth_for(pytorch_factor(), draw)
    model = mlp([draw.choice(WIDTHS)] * depth, lambda layer: layer, nn.ReLU)
    return Case("vanishing", "ReLU, PyTorch's default", model)


def vanishing_tanh(draw: random.Random) -> Case:
    """Tanh with Glorot's weights times s: at most s a layer."""
    factor = draw.choice([0.2, 0.4])
    depth = depth_for(factor, draw)
    model = mlp([draw.choice(WIDTHS)] * depth, partial(glorot, factor=factor), nn.Tanh)
    return Case("vanishing", "tanh, small weights", model)


def vanishing_convolutions(draw: random.Random) -> Case:
    """Convolutions of PyTorch's default initialization with ReLU: sqrt(1/6) a layer at most."""
    channels = [draw.choice([8, 12, 16])] * depth_for(pytorch_factor(), draw)
    return Case(
        "vanishing", "convolutions, default", convnet(channels, lambda layer: layer), images=True
    )


def exploding_relu(draw: random.Random) -> Case:
    """ReLU with He's weights times g > 1: g a layer."""
    factor = draw.choice([2.0, 2.5, 3.0, 4.0])
    depth = depth_for(factor, draw)
    model = mlp([draw.choice(WIDTHS)] * depth, partial(scaled, gain=2 * factor**2), nn.ReLU)
    return Case("exploding", "ReLU, large weights", model, clip=0.1)


def exploding_linear(draw: random.Random) -> Case:
    """No activation, weights of gain g^2: g a layer."""
    factor = draw.choice([2.0, 3.0, 4.0])
    depth = depth_for(factor, draw)
    model = mlp([draw.choice(WIDTHS)] * depth, partial(scaled, gain=factor**2), None)
    return Case("exploding", "linear, large weights", model, clip=0.1)


def exploding_convolutions(draw: random.Random) -> Case:
    """Convolutions with ReLU, He's weights times g > 1: g a layer, minus the effect of padding."""
    factor = draw.choice([2.5, 3.0, 4.0])
    channels = [draw.choice([8, 12, 16])] * (depth_for(factor * 0.85, draw) + 1)
    model = convnet(channels, partial(scaled, gain=2 * factor**2))
    return Case("exploding", "convolutions, large weights", model, images=True, clip=0.1)


def dead(draw: random.Random, *, images: bool) -> Case:
    """Biases of -10 before one hidden ReLU, for at least 90 % of its units."""
    depth = draw.randrange(3, 7)
    if images:
        model = convnet([draw.choice([16, 24])] * depth, he)
    else:
        model = mlp([draw.choice(WIDTHS)] * depth, he, nn.ReLU)
    kind = nn.Conv2d if images else nn.Linear
    layers = [module for module in model if isinstance(module, kind)][:depth]
    bias = layers[draw.randrange(1, depth)].bias
    assert isinstance(bias, Tensor)
    count = draw.choice([len(bias), round(0.9 * len(bias) + 0.5)])
    with torch.no_grad():
        bias[:count] = -10.0
    name = "convolutions" if images else "linear layers"
    return Case("dead", f"{name}, biases of -10", model, images=images)


def saturated(draw: random.Random, activation: type[nn.Module]) -> Case:
    """Pre-activations of one layer, or of all, 40 to 100 times too large.

    At pre-activations N(0, s^2) the mean derivative is about sqrt(2 / pi) / s of the largest for
    tanh, twice that for sigmoid. The inputs of the layer must vary for its weights to matter: those
    of the first layer do, and those of any layer between saturated ones, or after a tanh.
    """
    depth = draw.randrange(2, 6)
    width = draw.choice(WIDTHS)
    model = mlp([width] * depth, glorot, activation)
    layers = [module for module in model if isinstance(module, nn.Linear)][:depth]
    one = layers[0] if activation is nn.Sigmoid else draw.choice(layers)
    chosen = layers if draw.random() < 0.3 else [one]
    scale = draw.uniform(40, 100)
    with torch.no_grad():
        for layer in chosen:
            # A sigmoid's outputs have a mean, which weights of zero sum keep out.
            layer.weight -= layer.weight.mean(dim=1, keepdim=True)
            layer.weight *= scale * (2.0 if activation is nn.Sigmoid else 1.0)
    return Case("saturated", f"{activation.__name__.lower()}, large inputs", model, clip=1.0)


def not_updated(draw: random.Random) -> Case:
    """The parameters of the first half are not given to the optimizer."""
    depth = draw.randrange(4, 8)
    model = mlp([draw.choice(WIDTHS)] * depth, he, nn.ReLU)
    early = {id(weight) for weight in model[:depth].parameters()}
    make = draw.choice([adam(1e-3), sgd(0.01)])
    return Case(
        "not-updated",
        "half in no optimizer",
        model,
        optimizer=lambda weights: make([w for w in weights if id(w) not in early]),
    )


class _Detached(nn.Module):
    """Returns its input without its history."""

    def forward(self, x: Tensor) -> Tensor:
        """`x`, detached."""
        return x.detach()


def disconnected(draw: random.Random) -> Case:
    """The output of some hidden layer is detached, so that none before it gets a gradient."""
    depth = draw.randrange(3, 7)
    layers = list(mlp([draw.choice(WIDTHS)] * depth, he, nn.ReLU))
    place = 2 * draw.randrange(1, depth)
    model = nn.Sequential(*layers[:place], _Detached(), *layers[place:])
    return Case(
        "disconnected", "a detached output", model, optimizer=draw.choice([adam(1e-3), sgd(0.01)])
    )


def clipped(draw: random.Random) -> Case:
    """A bound of the gradient's norm of a millionth, with SGD: hardly anything moves."""
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 7), he, nn.ReLU)
    return Case("clipped", "a bound of a millionth", model, optimizer=sgd(0.01), clip=1e-6)


class _Poison(torch.autograd.Function):
    """Returns its input unchanged, but sets one value of the gradient to nan."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        """`x` as it is."""
        return x.clone()

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        """The gradient with its first element not a number."""
        spoilt = gradients[0].clone()
        spoilt.view(-1)[0] = float("nan")
        return spoilt


def nonfinite(draw: random.Random, *, backward: bool) -> Case:
    """From some step on, a hidden layer's output or its gradient has a non-finite value.

    The gradient is spoilt at the layer's input, which is the output of the layer before.
    """
    depth, step = draw.randrange(3, 7), draw.randrange(3, 20)
    model = mlp([draw.choice(WIDTHS)] * depth, he, nn.ReLU)
    names = [name for name, module in model.named_children() if isinstance(module, nn.Linear)]
    name = draw.choice(names[1:])
    layer = model[int(name)]
    now = [-1]

    def note(present: int) -> None:
        now[0] = present

    def spoil_output(_: nn.Module, args: object, output: Tensor) -> Tensor:
        if now[0] < step:
            return output
        spoilt = output.clone()
        spoilt.view(-1)[0] = draw.choice([float("inf"), float("nan")])
        return spoilt

    def spoil_gradient(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        poisoned: Tensor = _Poison.apply(args[0]) if now[0] >= step else args[0]
        return (poisoned,)

    if backward:
        layer.register_forward_pre_hook(spoil_gradient)
    else:
        layer.register_forward_hook(spoil_output)
    before = str(int(name) - 1)  # the ReLU
    place = (before, step, "backward") if backward else (name, step, "forward")
    family = "nan in a gradient" if backward else "nan or infinity in an output"
    return Case("non-finite", family, model, place=place, at_step=note)


def stalled(draw: random.Random) -> Case:
    """A learning rate of a billionth: a millionth of change would take thousands of steps.

    SGD moves a weight by rate times gradient; Adam by about the rate, which is a hundred-millionth
    of weights of 0.1.
    """
    rate = draw.choice([1e-9, 3e-9])
    norm = draw.choice([None, nn.BatchNorm1d])
    model = mlp([draw.choice(WIDTHS)] * draw.randrange(2, 7), he, nn.ReLU, norm)
    make = draw.choice([adam(rate), sgd(rate)])
    return Case("stalled", "learning rate of a billionth", model, optimizer=make)


def shattered(draw: random.Random) -> Case:
    """Plain batch-normalized ReLU networks so deep that 2^-L is about 0 (Balduzzi et al. 2017).

    Neighbours on a grid of 64 points start at an angle of about 0.02, which grows by 1.21 a layer:
    25 layers separate them, and each further layer halves the correlation.
    """
    width = draw.choice([64, 96])
    model = mlp([width] * draw.randrange(36, 48), he, nn.ReLU, nn.BatchNorm1d)
    return Case("shattered", "deep, batch norm", model, optimizer=adam(1e-5), shattering=True)


FAULTS: dict[str, list[Maker]] = {
    "vanishing": [
        vanishing_sigmoid,
        vanishing_small,
        vanishing_default,
        vanishing_tanh,
        vanishing_convolutions,
    ],
    "exploding": [exploding_relu, exploding_linear, exploding_convolutions],
    "dead": [partial(dead, images=False), partial(dead, images=True)],
    "saturated": [partial(saturated, activation=kind) for kind in (nn.Tanh, nn.Sigmoid)],
    "non-finite": [partial(nonfinite, backward=False), partial(nonfinite, backward=True)],
    "stalled": [stalled],
    "shattered": [shattered],
    "not-updated": [not_updated],
    "disconnected": [disconnected],
    "clipped": [clipped],
}
