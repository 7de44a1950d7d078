"""The two-convolution block, without and with its skip (He et al. 2015, figures 2 and 3).

The attribute names and the in-place operations are torchvision's, so that state dicts are
interchangeable and what is traced here is what runs in other people's networks.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

NormFactory = Callable[[int], nn.Module]


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, each normalized and rectified: [N, in, H, W] to [N, out, H/s, W/s].

    `bias` gives the convolutions a bias, which only a network without normalization needs.
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

    `downsample` is the skip where the shape changes; without one the skip is the identity.
    `skip_scale` multiplies the skip (He et al. 2016, Identity mappings in deep residual
    networks); at 1 there is no multiplication at all.
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
        """The skip of x, scaled: [N, in, H, W] to [N, out, H/s, W/s]."""
        skip: Tensor = x if self.downsample is None else self.downsample(x)
        return skip if self.skip_scale == 1 else skip * self.skip_scale

    def forward(self, x: Tensor) -> Tensor:
        """relu(branch(x) + skip(x)), the addition in place as in torchvision."""
        out = self.branch(x)
        out += self.skip(x)
        rectified: Tensor = self.relu(out)
        return rectified


class ZeroPadShortcut(nn.Module):
    """Option A: every stride-th pixel, then channels of zeros appended; no parameters.

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
