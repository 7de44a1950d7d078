"""Models of images, on the digits: ResNet, MobileNet, U-Net, ViT, mixer."""

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import Training

from healthy.recipe import classify, freeze, pool, recipe
from healthy.sources import digits


class Residual(nn.Module):
    """x + branch(x), or skip(x) + branch(x); an activation after it, if any."""

    def __init__(
        self, branch: nn.Module, skip: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch, self.skip, self.after = branch, skip, after

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        out = (self.skip(x) if self.skip is not None else x) + self.branch(x)
        return self.after(out) if self.after is not None else out


def _conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _basic(inputs: int, outputs: int, stride: int, zero_gamma: bool) -> nn.Module:
    last = nn.BatchNorm2d(outputs)
    if zero_gamma:
        nn.init.zeros_(last.weight)
    branch = nn.Sequential(
        _conv(inputs, outputs, stride=stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        _conv(outputs, outputs),
        last,
    )
    skip = None
    if stride > 1 or inputs != outputs:
        skip = nn.Sequential(_conv(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))
    return Residual(branch, skip, nn.ReLU(inplace=True))


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Classifier(nn.Module):
    """A stem, a body, and a head."""

    def __init__(self, stem: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = stem, body, head

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [N, 10]."""
        out: Tensor = self.head(self.body(self.stem(x)))
        return out


def resnet(draw: random.Random) -> Training:
    """Basic blocks in two stages, with batch norm, and zero gamma now and then."""
    width, blocks = draw.choice([8, 12, 16]), draw.randrange(1, 4)
    zero_gamma = draw.random() < 0.4
    body = [_basic(width, width, 1, zero_gamma) for _ in range(blocks)]
    body += [_basic(width, 2 * width, 2, zero_gamma)]
    body += [_basic(2 * width, 2 * width, 1, zero_gamma) for _ in range(blocks - 1)]
    stem = nn.Sequential(_conv(1, width), nn.BatchNorm2d(width), nn.ReLU())
    model = Classifier(stem, nn.Sequential(*body), _head(2 * width))
    training = recipe(
        draw,
        "resnet",
        model,
        pool(*digits(), 32, draw.randrange(1000)),
        classify,
        steps=(80, 110),
        head="head.2",
        classes=10,
        rules=("SGD", "momentum", "momentum", "Adam", "AdamW"),
        factor=3.0,
        learns=0.8,
        words=[f"{2 * blocks} blocks of {width}", "zero gamma" if zero_gamma else ""],
    )
    if draw.random() < 0.15:
        freeze(training, [model.stem], "frozen stem")
    return training


def _inverted(width: int, factor: int, activation: type[nn.Module]) -> nn.Module:
    inner = factor * width
    return Residual(
        nn.Sequential(
            _conv(width, inner, 1),
            nn.BatchNorm2d(inner),
            activation(),
            _conv(inner, inner, groups=inner),
            nn.BatchNorm2d(inner),
            activation(),
            _conv(inner, width, 1),
            nn.BatchNorm2d(width),
        )
    )


def mobilenet(draw: random.Random) -> Training:
    """Inverted residual blocks with depthwise convolutions."""
    width, blocks, factor = draw.choice([8, 12, 16]), draw.randrange(2, 5), draw.choice([2, 3])
    activation = draw.choice([nn.ReLU6, nn.Hardswish])
    stem = nn.Sequential(_conv(1, width), nn.BatchNorm2d(width), activation())
    model = Classifier(
        stem,
        nn.Sequential(*(_inverted(width, factor, activation) for _ in range(blocks))),
        _head(width),
    )
    return recipe(
        draw,
        "mobilenet",
        model,
        pool(*digits(), 32, draw.randrange(1000)),
        classify,
        steps=(60, 90),
        head="head.2",
        classes=10,
        rules=("momentum", "Adam", "AdamW"),
        factor=1.5,
        learns=0.8,
        words=[f"{blocks} blocks of {width} times {factor}", activation.__name__],
    )


def _double(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for first in (inputs, outputs):
        layer = nn.Conv2d(first, outputs, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        parts += [layer, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]
    return nn.Sequential(*parts)


class UNet(nn.Module):
    """Two halvings and two doublings of 16x16 images, with the skips between them."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.down1 = _double(1, width, norm)
        self.down2 = _double(width, 2 * width, norm)
        self.middle = _double(2 * width, 4 * width, norm)
        self.rise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = _double(4 * width, 2 * width, norm)
        self.rise1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = _double(2 * width, width, norm)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A logit for each pixel, [N, 1, 16, 16]."""
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.rise2(self.middle(F.max_pool2d(second, 2)))
        x = self.rise1(self.up2(torch.cat([second, x], 1)))
        out: Tensor = self.head(self.up1(torch.cat([first, x], 1)))
        return out


def segment(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel."""
    return F.binary_cross_entropy_with_logits(model(inputs).float(), targets)


def unet(draw: random.Random, *, norm: bool | None = None) -> Training:
    """Finds the pixels of digits under noise."""
    images, _ = digits()
    large = F.interpolate(images[:800], scale_factor=2, mode="bilinear")
    masks = (large > 0.3).float()
    noise = torch.randn(large.shape, generator=torch.Generator().manual_seed(0))
    width = draw.choice([6, 8])
    norm = draw.random() < 0.6 if norm is None else norm
    return recipe(
        draw,
        "u-net",
        UNet(width, norm),
        pool(large + 0.7 * noise, masks, 8, draw.randrange(1000)),
        segment,
        steps=(60, 90),
        head="head",
        rules=("momentum", "Adam", "AdamW"),
        learns=0.7,
        words=[f"width {width}", "batch norm" if norm else "no norm"],
    )


class Patches(nn.Module):
    """Patches of an image as tokens with places, blocks, and a head on their mean."""

    def __init__(self, patch: int, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, patch, stride=patch)
        self.places = nn.Parameter(torch.randn((8 // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [N, 10]."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.places
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return out


class Mixing(nn.Module):
    """Mixes tokens, then channels, each on a normalized branch."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [N, T, C]."""
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.channels(self.norm2(x))
        return out


def patches(draw: random.Random, *, mixer: bool) -> Training:
    """A vision transformer, or a mixer, on 4 or 16 patches."""
    patch, width, depth = draw.choice([2, 2, 4]), draw.choice([32, 48]), draw.randrange(2, 5)
    if mixer:
        blocks: list[nn.Module] = [Mixing((8 // patch) ** 2, width) for _ in range(depth)]
    else:
        blocks = [
            nn.TransformerEncoderLayer(
                width,
                draw.choice([2, 4]),
                2 * width,
                dropout=0.0 if draw.random() < 0.5 else 0.1,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        ]
    return recipe(
        draw,
        "mixer" if mixer else "vision transformer",
        Patches(patch, width, blocks),
        pool(*digits(), 32, draw.randrange(1000)),
        classify,
        steps=(70, 110),
        head="head",
        classes=10,
        rules=("Adam", "AdamW", "AdamW"),
        learns=0.8,
        words=[f"{depth} blocks of {width}, patches of {patch}"],
    )
