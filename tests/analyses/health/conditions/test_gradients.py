"""The places at which gradients are compared."""

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from analyses.health.conditions.gradients import gradient_places
from gradflow.conditions.depth import factor_range


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, x):
        return x + self.branch(x)


def places(folder, scale):
    """Those of a residual network whose stem has weights of `scale` before its norm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16, eps=1e-14),
        *(Residual(16) for _ in range(4)),
    )
    with torch.no_grad():
        model[0].weight *= scale
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(6):
            model(torch.randn(32, 8)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradient_places(gradflow.open_run(folder))


def factors(one):
    return factor_range(one.norms, one.stage, one.sizes)


def test_of_a_layer_before_a_norm_the_trunk_has_what_the_norm_returns(tmp_path):
    small, usual = (places(tmp_path / str(scale), scale) for scale in (1e-3, 1.0))
    assert small.names == ["1", "2", "3", "4", "5"]
    for one, other in zip(factors(small), factors(usual), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert np.all(factors(usual)[0] > 1)
