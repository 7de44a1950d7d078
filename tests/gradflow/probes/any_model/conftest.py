"""Models of other libraries with residual additions."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


def resnet():
    """torchvision's: two identity skips and two projections, an addition in place."""
    torch.manual_seed(1)
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).double()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    for _ in range(3):
        model(images)  # running statistics
    return model, images


def encoder(norm_first=True):
    """torch's transformer: two layers, two additions each."""
    torch.manual_seed(2)
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.3, batch_first=True, norm_first=norm_first
    )
    model = nn.Sequential(
        nn.Embedding(11, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    )
    model.append(nn.Sequential(nn.Flatten(), nn.Linear(40, 3)))
    return model.double(), torch.randint(11, (3, 5))


@pytest.fixture(scope="session")
def models():
    """By name, what makes a model with four residual additions and its inputs."""
    return {
        "resnet": resnet,
        "pre-norm": encoder,
        "post-norm": partial(encoder, norm_first=False),
    }
