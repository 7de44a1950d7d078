"""The whole network: stem, stages of blocks, global average pooling, one linear layer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradflow.models.blocks import NormFactory

BlockFactory = Callable[[int, int, int], nn.Module]


@dataclass(frozen=True)
class Layout:
    """The sizes of a network: the blocks and channels of each stage, and the kind of stem.

    The ImageNet stem is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2. The CIFAR
    stem is a 3x3 convolution. Both have as many output channels as the first stage.
    """

    blocks_per_stage: tuple[int, ...]
    channels_per_stage: tuple[int, ...]
    imagenet_stem: bool


class Network(nn.Module):
    """Images [N, 3, H, W] to logits [N, classes], with torchvision's attribute names.

    Source: the ImageNet and CIFAR networks of He et al. 2015.
    """

    def __init__(
        self,
        layout: Layout,
        make_block: BlockFactory,
        norm: NormFactory,
        *,
        classes: int,
        bias: bool,
    ) -> None:
        super().__init__()
        width = layout.channels_per_stage[0]
        if layout.imagenet_stem:
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=bias)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=bias)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        # None rather than an identity module, which would be traced as one more layer.
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if layout.imagenet_stem else None
        self.stages = tuple(
            f"layer{number}" for number in range(1, len(layout.blocks_per_stage) + 1)
        )
        for stage, count, channels in zip(
            self.stages, layout.blocks_per_stage, layout.channels_per_stage, strict=True
        ):
            stride = 1 if stage == "layer1" else 2
            first = make_block(width, channels, stride)
            rest = (make_block(channels, channels, 1) for _ in range(count - 1))
            self.add_module(stage, nn.Sequential(first, *rest))
            width = channels
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        x = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
