"""Blocks of two convolutions, without and with a skip (He et al. 2015, figures 2 and 3).

The attribute names and the in-place operations are torchvision's. So state dicts are
interchangeable, and traces of these networks are also valid for torchvision's.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

NormFactory = Callable[[int], nn.Module]


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, each with norm and ReLU: [N, in, H, W] to [N, out, H/s, W/s].

    `bias` adds a bias to the convolutions; only a network without normalization needs it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm: NormFactory, *, bias: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)
        self.bn1 = norm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.bn2 = norm(out_channels)

    def branch(self, x: Tensor) -> Tensor:
        """Everything but the last ReLU."""
        out = self.relu(self.bn1(self.conv1(x)))
        branch: Tensor = self.bn2(self.conv2(out))
        return branch

    def forward(self, x: Tensor) -> Tensor:
        """relu(branch(x))."""
        out: Tensor = self.relu(self.branch(x))
        return out


class BasicBlock(PlainBlock):
    """The plain block with a skip: relu(branch(x) + skip(x)) (He et al. 2015).

    `downsample` is the skip of a block that changes the shape; None makes the skip the identity.
    `skip_scale` multiplies the skip (He et al. 2016, Identity mappings in deep residual
    networks). If it is 1, the multiplication is left out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm: NormFactory,
        *,
        bias: bool,
        downsample: nn.Module | None,
        skip_scale: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm, bias=bias)
        self.downsample = downsample
        self.skip_scale = skip_scale

    def skip(self, x: Tensor) -> Tensor:
        """The scaled skip of x: [N, in, H, W] to [N, out, H/s, W/s]."""
        skip: Tensor = x if self.downsample is None else self.downsample(x)
        return skip if self.skip_scale == 1 else skip * self.skip_scale

    def forward(self, x: Tensor) -> Tensor:
        """relu(branch(x) + skip(x)). The addition is in place, as in torchvision."""
        out = self.branch(x)
        out += self.skip(x)
        rectified: Tensor = self.relu(out)
        return rectified


class ZeroPadShortcut(nn.Module):
    """Option A: takes every stride-th pixel and appends channels of zeros. No parameters.

    Source: He et al. 2015.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.padding = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H/s, W/s]."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.padding))


def projection(
    in_channels: int, out_channels: int, stride: int, norm: NormFactory, *, bias: bool
) -> nn.Module:
    """Option B: a strided 1x1 convolution and a normalization (He et al. 2015)."""
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=bias)
    return nn.Sequential(convolution, norm(out_channels))
