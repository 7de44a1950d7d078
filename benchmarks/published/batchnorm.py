"""Batch normalization makes gradients grow toward the input at initialization."""

import math
from collections.abc import Iterable

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from analyses.statistics import theory
from gradflow.models import build
from published.networks import Together, plain_net
from published.recording import record
from published.rows import Item, Row, Tolerance, compare

BATCHES = (8, 16, 32, 128)
NETS = 20
TOGETHER = 5
"""Networks recorded in one run."""
WIDTH = 512
DEPTH = 20
INNER = (4, 17)
WIDE = Tolerance(relative=0.01, errors=4)
IMAGE_NETS = 6
IMAGES = 16
KEPT = Tolerance(absolute=0.15)


def connected_item() -> Item:
    """The mean-field factor per layer of fully connected nets, at several batch sizes."""
    return Item(
        paper="4  Yang et al. 2019, theorem 8: growth of |dL/dz|^2 per layer, BN",
        setting=f"{NETS} nets, {DEPTH} layers of width {WIDTH}, layers {INNER[0]} to {INNER[1]}",
        tolerance=str(WIDE),
        rows=tuple(_connected_rows()),
    )


def convolutional_item() -> Item:
    """34 layers of convolutions: the factor in the first stage, and the whole networks' slopes."""
    return Item(
        paper="4  Yang et al. 2019, large-batch limit; 34 layers of convolutions",
        setting=f"{IMAGE_NETS} nets, {IMAGES} noise images of 32x32, CIFAR stem, shortcut A",
        tolerance=f"{WIDE}; slopes {KEPT}: of an independent run, no formula",
        rows=tuple(_convolutional_rows()),
    )


def _connected_rows() -> Iterable[Row]:
    first, last = INNER
    for batch in BATCHES:
        factors = []
        for seed in range(NETS // TOGETHER):
            torch.manual_seed(seed)
            nets = Together(plain_net(WIDTH, DEPTH, batchnorm=True) for _ in range(TOGETHER))
            x = torch.randn(TOGETHER, batch, WIDTH)
            (gradients,) = record(nets, (nets(x).square().sum() for _ in range(1)), "gradients")
            norms = gradients.set_index("layer")["norm"]
            for net in range(TOGETHER):
                growth = (norms[f"{net}.linear{first}"] / norms[f"{net}.linear{last}"]) ** 2
                factors.append(float(growth ** (1 / (last - first))))
        yield compare(f"batch {batch}", theory.batchnorm_growth(batch), factors, WIDE)


def _convolutional_rows() -> Iterable[Row]:
    plain = [_gradient_norms("plain34", seed, batchnorm=True) for seed in range(IMAGE_NETS)]
    residual = [_gradient_norms("resnet34", seed, batchnorm=True) for seed in range(IMAGE_NETS)]
    bare = [_gradient_norms("plain34", seed, batchnorm=False) for seed in range(IMAGE_NETS)]
    factors = [
        float((norms["layer1.0.conv1"] / norms["layer1.2.conv2"]) ** (2 / 5)) for norms in plain
    ]
    yield compare("plain34, per conv., stage 1", theory.BATCHNORM_GROWTH_LIMIT, factors, WIDE)
    for name, kept, nets in (
        ("plain34, log10 stem / last", 2.40, plain),
        ("resnet34, log10 stem / last", 1.23, residual),
        ("plain34, no BN, default init", -13.0, bare),
    ):
        slopes = [math.log10(norms["relu"] / norms["layer4.2"]) for norms in nets]
        yield compare(name, kept, slopes, KEPT)


def _gradient_norms(name: str, seed: int, *, batchnorm: bool) -> "pd.Series[float]":
    """|dL/dx| by layer, for the cross-entropy of noise images with random labels."""
    torch.manual_seed(seed)
    if batchnorm:
        model = build(name, classes=10, shortcut="A", seed=seed)
    else:
        model = build(name, classes=10, norm="none", init="default", seed=seed)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=not batchnorm)
    if batchnorm:
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.register_module("maxpool", None)
    x, y = torch.randn(IMAGES, 3, 32, 32), torch.randint(0, 10, (IMAGES,))
    (gradients,) = record(model, (F.cross_entropy(model(x), y) for _ in range(1)), "gradients")
    return gradients.set_index("layer")["norm"]
