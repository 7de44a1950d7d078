"""The places at which gradients are compared."""

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from analyses.health.conditions.gradients import flow_answers, gradient_places
from analyses.result import Verdict
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


class Denoiser(nn.Module):
    """Plain layers with one skip around all of them."""

    def __init__(self, factor):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(6))
        for layer in self.layers[1:]:
            nn.init.orthogonal_(layer.weight, factor)

    def forward(self, x):
        first = h = self.layers[0](x)
        for layer in self.layers[1:]:
            h = layer(h)
        return first + h


@pytest.mark.parametrize(("factor", "explodes"), [(5.0, True), (1.0, False)])
def test_one_skip_around_many_layers_is_no_trunk(tmp_path, factor, explodes):
    torch.manual_seed(0)
    model = Denoiser(factor)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(12):
            loss = (model(torch.randn(16, 8)) - 1).square().mean()
            tracer.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.junctions)  # the addition was seen
    found = {one.condition: one for one in flow_answers(run, 1e-2, 1e2, 20)}
    expected = Verdict.SUPPORTED if explodes else Verdict.CONTRADICTED
    assert found["exploding"].verdict is expected
