"""Autocorrelation of the gradient along a line, against closed forms and gradients by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import gradflow


class Wave(nn.Module):
    """f(x) = sin(w x), whose gradient w cos(w x) is known."""

    def forward(self, x):
        return torch.sin(2 * math.pi * x)


def test_gradient_of_a_wave_has_the_autocorrelation_of_a_cosine():
    points, periods = 240, 3
    first, last = (
        torch.zeros(1).double(),
        torch.full((1,), periods * (points - 1) / points).double(),
    )
    found = gradflow.probes.shattering(Wave(), first, last, points=points, lags=41)
    # Whole periods: the mean is 0, and the products over T - k points are within 2 k / T of it.
    expected = np.cos(2 * math.pi * periods * np.arange(41) / points)
    assert found.autocorrelation.to_numpy() == pytest.approx(expected, abs=0.1)
    assert found.autocorrelation[40] == pytest.approx(-1, abs=0.1)
    assert found.distance[1] == pytest.approx(periods / points)


def test_gradient_is_that_of_the_chosen_output_in_evaluation_mode():
    torch.manual_seed(0)
    model = resnet18(num_classes=4).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = gradflow.probes.shattering(
        model, images[0], images[1], of=lambda output: output[:, 2], points=6, lags=3
    )
    assert model.training
    model.eval()
    gradients = []
    for t in torch.linspace(0, 1, 6, dtype=torch.float64):
        x = ((1 - t) * images[:1] + t * images[1:]).requires_grad_()
        gradients.append(torch.autograd.grad(model(x)[0, 2], x)[0].flatten().numpy())
    d = np.stack(gradients) - np.mean(gradients, 0)
    means = [np.mean([d[t] @ d[t + lag] for t in range(6 - lag)]) for lag in range(3)]
    assert found.autocorrelation.to_numpy() == pytest.approx(np.array(means) / means[0])


def test_linear_model_has_none():
    found = gradflow.probes.shattering(nn.Linear(3, 1), torch.zeros(3), torch.ones(3))
    assert found.autocorrelation.isna().all()
    assert len(found) == 16


def test_lags_beyond_the_points_are_refused():
    with pytest.raises(ValueError, match="4 points have lags 0 to 3"):
        gradflow.probes.shattering(nn.Linear(3, 1), torch.zeros(3), torch.ones(3), points=4)
