"""The factor from theory, compared with networks that have this initialization."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.gradients.profile.theory import initial_gain, theory_factor
from analyses.reading.layer_gradients import layer_gradients

WIDTH, DEPTH = 128, 8


@pytest.fixture
def start(tmp_path):
    """Traces one step of a chain of linear layers that `prepare` has initialized."""

    def traced(prepare, activation=nn.ReLU, norm=None):
        torch.manual_seed(3)
        parts = []
        for _ in range(DEPTH):
            parts += [prepare(nn.Linear(WIDTH, WIDTH))]
            parts += [norm(WIDTH)] if norm else []
            parts += [activation()]
        model = nn.Sequential(*parts, nn.Linear(WIDTH, 4))
        with gradflow.Tracer(model, tmp_path / "run") as tracer:
            F.cross_entropy(model(torch.randn(32, WIDTH)), torch.randint(0, 4, (32,))).backward()
            tracer.step()
            tracer.end_epoch()
        return gradflow.open_run(tmp_path / "run")

    return traced


def he(layer):
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@pytest.mark.parametrize(
    ("prepare", "gain", "name"),
    [
        (lambda layer: layer, 1 / 3, "PyTorch's default initialization"),
        (he, 2.0, "the initial weights"),
    ],
)
def test_the_initial_weights_give_the_factor_that_is_measured(start, prepare, gain, name):
    run = start(prepare)
    expected = theory_factor(run)
    assert initial_gain(run) == pytest.approx(gain, rel=0.05)
    assert expected.name == name
    assert expected.factor == pytest.approx((gain / 2) ** 0.5, rel=0.03)
    measured = float(np.exp(layer_gradients(run).log_factors.iloc[0]))
    assert expected.factor == pytest.approx(measured, rel=0.15)


def test_batch_norm_has_its_mean_field_factor(start):
    expected = theory_factor(start(he, norm=nn.BatchNorm1d))
    assert expected.factor == pytest.approx(1.522**0.5, abs=1e-3)  # batches of 32
    assert expected.plain


def test_no_theory_is_claimed_for_other_activations_and_norms(start):
    assert theory_factor(start(he, activation=nn.Tanh)) is None


def test_no_theory_is_claimed_for_layer_norm(start):
    assert theory_factor(start(he, norm=nn.LayerNorm)) is None
