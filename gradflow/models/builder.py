"""Builds a network from its name, e.g. plain34 or resnet20, and draws its initial weights."""

import difflib
import math
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn

from gradflow.errors import ConfigurationError
from gradflow.models.blocks import (
    BasicBlock,
    NormFactory,
    PlainBlock,
    ZeroPadShortcut,
    projection,
)
from gradflow.models.initialization import initialize
from gradflow.models.network import BlockFactory, Layout, Network

Norm = Literal["batch", "none", "group"]
Shortcut = Literal["A", "B"]
Init = Literal["kaiming", "default"]


def _imagenet_layout(*blocks: int) -> Layout:
    return Layout(blocks, channels_per_stage=(64, 128, 256, 512), imagenet_stem=True)


def _cifar_layout(depth: int) -> Layout:
    """6n + 2 layers: the stem, three stages of n blocks of two convolutions, the linear layer."""
    return Layout(((depth - 2) // 6,) * 3, channels_per_stage=(16, 32, 64), imagenet_stem=False)


LAYOUTS = {
    18: _imagenet_layout(2, 2, 2, 2),
    34: _imagenet_layout(3, 4, 6, 3),
    **{depth: _cifar_layout(depth) for depth in (20, 32, 44, 56, 110)},
}

MODEL_NAMES: tuple[str, ...] = tuple(
    f"{family}{depth}" for family in ("plain", "resnet") for depth in LAYOUTS
)


def build(
    name: str,
    *,
    classes: int,
    norm: Norm = "batch",
    shortcut: Shortcut | None = None,
    init: Init = "kaiming",
    skip_scale: float = 1.0,
    seed: int,
) -> nn.Module:
    """Build the network called `name`: images [N, 3, H, W] to logits [N, classes], on the CPU.

    The plain network is the residual one without its skips (He et al. 2015).

    Args:
        name: One of `MODEL_NAMES`. 18 and 34 are the paper's ImageNet networks, with state dicts
            interchangeable with torchvision's; the others are its CIFAR networks.
        classes: Number of logits, at least 2.
        norm: After each convolution: batch normalization; none (the convolutions then have a
            bias); or group normalization with 32 groups. With fewer than 64 channels each group
            has 2 channels (groups of one channel would be instance normalization).
        shortcut: If a block changes the shape: A, zero-padding, or B, projection. None is the
            paper's usual choice: B for 18 and 34, A for the others. Plain networks ignore it.
        skip_scale: Factor on every skip, at least 0. With 0 the network computes the same as
            the plain network of the same seed. Plain networks ignore it.
        init: "kaiming", He et al.'s, or "default", PyTorch's; see `initialization.initialize`.
        seed: Networks of one seed have identical initial weights in all layers they share. The
            global random state is neither read nor advanced.

    Raises:
        ConfigurationError: An argument is not among its choices, or out of range.
    """
    _require_choice("network", name, MODEL_NAMES)
    _require_choice("norm", norm, get_args(Norm))
    _require_choice("shortcut", shortcut, (None, *get_args(Shortcut)))
    _require_choice("init", init, get_args(Init))
    _require_ranges(classes, skip_scale)
    layout = LAYOUTS[int(name.removeprefix("plain").removeprefix("resnet"))]
    bias = norm == "none"
    # On the meta device layers have no storage, so their own initialization draws no numbers.
    with torch.device("meta"):
        block = _block_factory(
            residual=name.startswith("resnet"),
            shortcut=shortcut or ("B" if layout.imagenet_stem else "A"),
            norm=NORMS[norm],
            bias=bias,
            skip_scale=skip_scale,
        )
        network = Network(layout, block, NORMS[norm], classes=classes, bias=bias)
    network.to_empty(device="cpu")
    initialize(network, kaiming=init == "kaiming", seed=seed)
    return network


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(32, channels // 2), channels)


NORMS: dict[str, NormFactory] = {
    "batch": nn.BatchNorm2d,
    "none": _no_norm,
    "group": _group_norm,
}


def _block_factory(
    *, residual: bool, shortcut: Shortcut, norm: NormFactory, bias: bool, skip_scale: float
) -> BlockFactory:
    """A function that makes a block from its input channels, output channels and stride."""
    if not residual:
        return partial(PlainBlock, norm=norm, bias=bias)

    def basic_block(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            if shortcut == "A":
                downsample = ZeroPadShortcut(in_channels, out_channels, stride)
            else:
                downsample = projection(in_channels, out_channels, stride, norm, bias=bias)
        return BasicBlock(
            in_channels,
            out_channels,
            stride,
            norm,
            bias=bias,
            downsample=downsample,
            skip_scale=skip_scale,
        )

    return basic_block


def _require_ranges(classes: int, skip_scale: float) -> None:
    if classes < 2:
        raise ConfigurationError(f"a classifier needs at least 2 classes, not {classes}")
    if not (math.isfinite(skip_scale) and skip_scale >= 0):
        raise ConfigurationError(
            f"the scale of a skip must be 0 or a positive number, not {skip_scale}"
        )


def _require_choice(option: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), [c for c in choices if c is not None], n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    existing = ", ".join(str(choice) for choice in choices)
    raise ConfigurationError(f"there is no {option} called {value!r}{hint}; there are {existing}")
