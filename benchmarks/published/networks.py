"""Networks with known gradients at initialization, in addition to those of `gradflow.models`."""

import math

import torch
from torch import Tensor, nn

from analyses.statistics.theory import HE_GAIN


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer without bias, its weights normal with variance `gain` / inputs."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, 0.0, math.sqrt(gain / inputs))
    return layer


def plain_net(
    width: int,
    depth: int,
    *,
    gain: float = HE_GAIN,
    batchnorm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
    outputs: int = 1,
) -> nn.Sequential:
    """`depth` layers of one width, each linear, optional batch norm, activation; then a readout.

    The layers are called linear1, norm1, activation1, linear2, ... The layer `input` is an
    identity, so that the tracer records the gradient of the input.
    """
    net = nn.Sequential()
    net.add_module("input", nn.Identity())
    for level in range(1, depth + 1):
        net.add_module(f"linear{level}", linear(width, width, gain))
        if batchnorm:
            net.add_module(f"norm{level}", nn.BatchNorm1d(width))
        net.add_module(f"activation{level}", activation())
    net.add_module("readout", linear(width, outputs, 1.0))
    return net


class ResidualLayer(nn.Module):
    """x + beta W relu(norm(x)), [N, width] to the same, W at He's initialization."""

    def __init__(self, width: int, *, beta: float, batchnorm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if batchnorm else nn.Identity()
        self.relu = nn.ReLU()
        self.linear = linear(width, width, HE_GAIN)
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the input and the scaled branch."""
        branch: Tensor = self.linear(self.relu(self.norm(x)))
        return x + self.beta * branch


def residual_net(width: int, depth: int, *, beta: float, batchnorm: bool) -> nn.Sequential:
    """`depth` residual layers called block1, block2, ..., between `input` and a readout."""
    net = nn.Sequential()
    net.add_module("input", nn.Identity())
    for level in range(1, depth + 1):
        net.add_module(f"block{level}", ResidualLayer(width, beta=beta, batchnorm=batchnorm))
    net.add_module("readout", linear(width, 1, 1.0))
    return net


class PreactivationBlock(nn.Module):
    """x + conv(relu(BN(conv(relu(BN(x)))))), [N, C, H, W] to the same; He et al. 2016.

    A transition's skip is a convolution of relu(BN(x)) instead of x. Convolutions wrap around
    the borders, so that no pixel has fewer neighbours than another.
    """

    def __init__(self, channels: int, *, transition: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1, self.conv2 = convolution(channels, channels), convolution(channels, channels)
        self.shortcut = convolution(channels, channels) if transition else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of skip and branch."""
        activated = self.norm1(x).relu()
        branch: Tensor = self.conv2(self.norm2(self.conv1(activated)).relu())
        return branch + (x if self.shortcut is None else self.shortcut(activated))


def convolution(inputs: int, outputs: int, gain: float = HE_GAIN) -> nn.Conv2d:
    """A 3x3 convolution without bias that wraps around, normal with variance gain / fan_in."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular", bias=False)
    nn.init.normal_(layer.weight, 0.0, math.sqrt(gain / (9 * inputs)))
    return layer


def freeze_statistics(model: nn.Module, x: Tensor) -> None:
    """Freeze the batch-norm statistics of `model` at those of its inputs `x`.

    Then the gradient of a sum over samples is separate for each sample. All other modules stay in
    training mode, because the tracer records only in that mode.
    """
    normalizations = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    for module in normalizations:
        module.momentum = None  # a plain average, here of one batch
    with torch.no_grad():
        model.train()(x)
    for module in normalizations:
        module.eval()


class Together(nn.ModuleList):
    """Independent networks called 0, 1, ..., recorded in one run to write fewer files."""

    def forward(self, x: Tensor) -> Tensor:
        """[networks, N, ...] to the same: x[i] goes through network i alone."""
        return torch.stack([net(own) for net, own in zip(self, x, strict=True)])
