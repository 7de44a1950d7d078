"""Cosines are right or missing, whatever changes the gradients between two steps."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.spatial.distance import cosine
from torch import nn

import gradflow
from gradflow.hooks.updates.measures.previous_gradients import PreviousGradients


class GradientChanger(torch.optim.Optimizer):
    """Adds the weight decay to the gradient in place, past its version counter, as some do."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.data.add_(parameter.data, alpha=0.5)
                parameter.add_(parameter.grad, alpha=-group["lr"])


def train(model, optimizer, folder, *, steps, set_to_none, between=lambda step: None):
    """Train traced; the gradients as the optimizer got them, and the recorded cosines."""
    gradients = []
    with gradflow.Tracer(model, folder, optimizer=optimizer):
        for step in range(steps):
            optimizer.zero_grad(set_to_none=set_to_none)
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step)).double()
            model(x).square().sum().backward()
            gradients.append(model[0].weight.grad.flatten().numpy().copy())
            optimizer.step()
            between(step)
    rows = gradflow.open_run(folder).parameters
    recorded = rows[rows.parameter == "0.weight"].gradient_cosine.to_numpy()
    return [math.nan, *(1 - cosine(a, b) for a, b in pairwise(gradients))], list(recorded)


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3)).double()


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, GradientChanger])
def test_every_cosine_is_right_whether_gradients_are_replaced_or_refilled(
    tmp_path, set_to_none, kind
):
    model = make()
    optimizer = kind(model.parameters(), lr=0.01)
    expected, recorded = train(model, optimizer, tmp_path / "run", steps=6, set_to_none=set_to_none)
    assert recorded == pytest.approx(expected, rel=1e-10, nan_ok=True)


def test_a_gradient_changed_between_steps_leaves_one_cosine_missing_and_none_wrong(tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def spoil(step):
        if step == 3:
            model[0].weight.grad.data.mul_(2.0).add_(1.0)

    expected, recorded = train(
        model, optimizer, tmp_path / "run", steps=7, set_to_none=True, between=spoil
    )
    assert math.isnan(recorded[4])
    expected[4] = math.nan
    assert recorded == pytest.approx(expected, rel=1e-10, nan_ok=True)


@pytest.mark.parametrize("change", [torch.Tensor.neg_, lambda g: g.copy_(g.flip(0).clone())])
def test_a_change_that_leaves_the_norm_leaves_one_cosine_missing_too(tmp_path, change):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def spoil(step):
        if step == 3:
            change(model[0].weight.grad)

    expected, recorded = train(
        model, optimizer, tmp_path / "run", steps=7, set_to_none=True, between=spoil
    )
    expected[4] = math.nan
    assert recorded == pytest.approx(expected, rel=1e-10, nan_ok=True)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizer_that_counts_reading_as_a_change_spoils_no_cosine(tmp_path, kind):
    model = make()
    optimizer = kind(model.parameters(), lr=0.01, fused=True)
    expected, recorded = train(model, optimizer, tmp_path / "run", steps=6, set_to_none=True)
    assert recorded == pytest.approx(expected, rel=1e-10, nan_ok=True)


def measure(kept, parameter):
    kept.begin_step({"w": parameter})
    found = kept.measure({"w": parameter}, compare=True, keep=True)
    kept.check_after_step({"w": parameter})
    return found.cosines[0]


def test_gradients_that_the_user_releases_are_not_copied():
    kept = PreviousGradients()
    parameter = nn.Parameter(torch.randn(50))
    for _ in range(3):
        parameter.grad = torch.randn(50)
        measure(kept, parameter)
    assert kept._each()["w"].tensor.data_ptr() == parameter.grad.data_ptr()
    assert not kept._buffers


def test_a_gradient_that_is_reused_in_place_is_not_compared_with_itself():
    kept = PreviousGradients()
    parameter = nn.Parameter(torch.randn(50))
    for _ in range(3):
        parameter.grad = torch.randn(50)
        measure(kept, parameter)
    parameter.grad.zero_().add_(torch.randn(50))
    assert measure(kept, parameter) is None
    before = parameter.grad.clone()
    parameter.grad.zero_().add_(torch.randn(50))
    expected = 1 - cosine(before, parameter.grad)
    assert measure(kept, parameter) == pytest.approx(expected, rel=1e-5)
