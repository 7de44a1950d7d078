"""The weights are bfloat16, and the updates smaller than it can hold beside them."""

from pathlib import Path

import torch
from small_training import digits, perceptron, train
from torch.nn import functional as F


def trained(folder: Path, kind: torch.dtype) -> Path:
    """Train with weights of this type."""
    pixels, classes = digits()
    return train(
        perceptron().to(kind),
        folder,
        rate=0.01,
        steps=1500,
        data=(pixels.to(kind), classes),
        loss=lambda outputs, targets: F.cross_entropy(outputs.float(), targets),
    )


def ill(folder: Path) -> Path:
    """With weights in bfloat16."""
    return trained(folder, torch.bfloat16)


def mended(folder: Path) -> Path:
    """With weights in float32."""
    return trained(folder, torch.float32)
