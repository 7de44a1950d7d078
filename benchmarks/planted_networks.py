"""Small networks with one planted condition, and healthy ones that look ill at first glance.

The truth comes from how a network is made, never from measurements on it. By the closed forms of
`analyses.statistics.theory`, the initial weights of ill networks lie a factor of ten outside the
bounds of the health check, and those of healthy networks a factor of five inside.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from analyses.statistics.theory import PYTORCH_DEFAULT_GAIN, relu_growth

INPUTS, CLASSES = 32, 5
IMAGE = (4, 8, 8)  # channels, height, width
FIXED = 1e-3  # an ill network's factor over the depth is at most this, or at least its inverse


@dataclass
class Case:
    """A network and how it is trained.

    Fields:
        planted: the planted condition; healthy for none.
        family: how the network was made, in words.
        model: ready to train.
        images: whether its inputs are images rather than vectors.
        optimizer: makes the optimizer for the model's parameters.
        rate: factor of the learning rate, as a function of the share of steps done.
        clip: the largest allowed norm of all parameters' gradients.
        place: for values that are not finite: (layer, step, direction) of the first one.
        at_step: called before each step with its number.
        shattering: whether to record the gradient along lines between inputs.
    """

    planted: str
    family: str
    model: nn.Module
    images: bool = False
    optimizer: Callable[[Any], torch.optim.Optimizer] = field(
        default=lambda weights: torch.optim.SGD(weights, lr=0.02)
    )
    rate: Callable[[float], float] = lambda _: 1.0
    clip: float | None = None
    place: tuple[str, int, str] | None = None
    at_step: Callable[[int], None] = lambda _: None
    shattering: bool = False


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """The sum of `x`, [N, ...], and the branch of it."""
        out: Tensor = x + self.branch(x)
        return out


def scaled(layer: nn.Module, gain: float) -> nn.Module:
    """`layer` with weights N(0, gain / fan_in) and biases zero; gain 2 gives He's weights."""
    weight = layer.weight
    fan_in = weight[0].numel()
    nn.init.normal_(weight, 0.0, (gain / fan_in) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer


def glorot(layer: nn.Module, factor: float = 1.0) -> nn.Module:
    """`layer` with Glorot's weights times `factor`, and biases zero."""
    nn.init.xavier_normal_(layer.weight, factor)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(
    widths: list[int],
    prepare: Callable[[nn.Module], nn.Module],
    activation: type[nn.Module] | None,
    norm: type[nn.Module] | None = None,
) -> nn.Sequential:
    """Linear, normalization, activation for each of `widths`; a linear classifier at the end."""
    parts: list[nn.Module] = []
    last = INPUTS
    for width in widths:
        parts.append(prepare(nn.Linear(last, width)))
        parts += [norm(width)] if norm else []
        parts += [activation()] if activation else []
        last = width
    return nn.Sequential(*parts, glorot(nn.Linear(last, CLASSES)))


def convnet(
    channels: list[int],
    prepare: Callable[[nn.Module], nn.Module],
    *,
    norm: bool = False,
    pools: Callable[[int], nn.Module | None] = lambda _: None,
) -> nn.Sequential:
    """3x3 convolution, normalization, ReLU for each of `channels`; average pooling, classifier."""
    parts: list[nn.Module] = []
    last = IMAGE[0]
    for place, count in enumerate(channels):
        parts.append(prepare(nn.Conv2d(last, count, 3, padding=1)))
        parts += [nn.BatchNorm2d(count)] if norm else []
        parts.append(nn.ReLU())
        pool = pools(place)
        parts += [pool] if pool is not None else []
        last = count
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), glorot(nn.Linear(last, CLASSES)))
    return nn.Sequential(*parts, *head)


def he(layer: nn.Module) -> nn.Module:
    """`layer` with He's weights."""
    return scaled(layer, 2.0)


def residual_net(blocks: int, width: int, *, zero_gamma: bool) -> nn.Sequential:
    """Blocks x + BN(W relu(BN(W x))); with `zero_gamma` each branch starts closed."""
    parts: list[nn.Module] = [he(nn.Linear(INPUTS, width)), nn.BatchNorm1d(width), nn.ReLU()]
    for _ in range(blocks):
        last = nn.BatchNorm1d(width)
        if zero_gamma:
            nn.init.zeros_(last.weight)
        first = (he(nn.Linear(width, width)), nn.BatchNorm1d(width), nn.ReLU())
        parts += [Residual(nn.Sequential(*first, he(nn.Linear(width, width)), last)), nn.ReLU()]
    return nn.Sequential(*parts, glorot(nn.Linear(width, CLASSES)))


def residual_convnet(blocks: int, channels: int, *, zero_gamma: bool) -> nn.Sequential:
    """As `residual_net`, with 3x3 convolutions."""

    def convolution(inputs: int) -> nn.Module:
        return he(nn.Conv2d(inputs, channels, 3, padding=1))

    parts: list[nn.Module] = [convolution(IMAGE[0]), nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(blocks):
        last = nn.BatchNorm2d(channels)
        if zero_gamma:
            nn.init.zeros_(last.weight)
        first = (convolution(channels), nn.BatchNorm2d(channels), nn.ReLU())
        parts += [Residual(nn.Sequential(*first, convolution(channels), last)), nn.ReLU()]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), glorot(nn.Linear(channels, CLASSES)))
    return nn.Sequential(*parts, *head)


def pre_norm_net(blocks: int, width: int) -> nn.Sequential:
    """Blocks x + W gelu(W LN(x)), as the feed-forward halves of a transformer."""
    branches = [
        nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        for _ in range(blocks)
    ]
    body = [Residual(branch) for branch in branches]
    return nn.Sequential(
        nn.Linear(INPUTS, width), *body, nn.LayerNorm(width), nn.Linear(width, CLASSES)
    )


def adam(rate: float = 1e-3, decay: float = 0.0) -> Callable[[Any], torch.optim.Optimizer]:
    """Makes AdamW of this rate and weight decay."""
    return lambda weights: torch.optim.AdamW(weights, lr=rate, weight_decay=decay)


def sgd(rate: float, decay: float = 0.0) -> Callable[[Any], torch.optim.Optimizer]:
    """Makes SGD with momentum of this rate and weight decay."""
    return lambda weights: torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=decay)


def any_optimizer(draw: random.Random) -> Callable[[Any], torch.optim.Optimizer]:
    """An optimizer with a rate in common use."""
    return draw.choice([adam(1e-3), adam(3e-4), adam(1e-3, 0.1), sgd(0.01), sgd(0.02, 5e-4)])


def depth_for(factor: float, draw: random.Random, most: int = 24) -> int:
    """A depth at which `factor` per layer gives `FIXED` (or its inverse) over all hidden layers."""
    least = 2
    while FIXED < factor**least < 1 / FIXED:
        least += 1
    return min(least + draw.randrange(4), max(most, least))


def pytorch_factor() -> float:
    """Factor of the gradient norm per ReLU layer at PyTorch's default initialization."""
    return float(relu_growth(PYTORCH_DEFAULT_GAIN) ** 0.5)
