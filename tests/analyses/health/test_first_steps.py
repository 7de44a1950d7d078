"""What was so when a condition began is told as its cause."""

import math

import pytest
import torch
from torch import nn

import gradflow
from analyses.health.conditions import read_health
from analyses.health.question import all_findings
from analyses.result import Verdict

STEPS = 12


def chain(activation, depth=3, gain=1.0):
    """Linear layers of 32 with weights of variance gain / 32, and zero biases."""
    parts = []
    for _ in range(depth):
        layer = nn.Linear(32, 32)
        nn.init.normal_(layer.weight, 0.0, math.sqrt(gain / 32))
        nn.init.zeros_(layer.bias)
        parts += [layer, activation()]
    return nn.Sequential(*parts, nn.Linear(32, 4))


@pytest.fixture
def cause_of(tmp_path):
    def trained(model, condition, scale=1.0, rate=1e-4, at_step=lambda step: None, loss=None):
        torch.manual_seed(1)
        loss = loss or (lambda outputs, step: outputs.square().mean())
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
            for step in range(STEPS):
                at_step(step)
                loss(model(scale * torch.randn(64, 32)), step).backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
        found = {one.condition: one for one in read_health(gradflow.open_run(tmp_path / "run"))}
        assert found[condition].verdict is Verdict.SUPPORTED
        return found[condition].cause

    return trained


def test_a_bias_is_told_by_its_size_beside_the_spread_of_the_outputs(cause_of):
    torch.manual_seed(0)
    model = chain(nn.ReLU, gain=2.0)
    nn.init.constant_(model[2].bias, -10.0)
    cause = cause_of(model, "dead")
    assert cause.startswith("Its inputs, the outputs of layer 2, have mean -")
    assert "its bias of about 10" in cause
    assert "before any update" in cause


def test_units_that_get_nothing_are_told_by_weights_of_zero_and_what_to_do(cause_of, tmp_path):
    model = chain(nn.ReLU)
    nn.init.zeros_(model[2].weight)
    cause = cause_of(model, "dead")
    assert cause.endswith("the weights of layer 2 are 0, or its inputs are.")
    experiment = gradflow.open_experiment(tmp_path / "run")
    found = {one.topic: one for one in all_findings(experiment)}
    assert found["dead"].next_step.startswith("Give the weights of that layer random values")
    assert found["collapsed"].next_step == found["dead"].next_step  # an effect of it
    assert found["healthy"].next_step == found["dead"].next_step


def test_units_that_die_later_are_not_told_by_the_initial_weights(cause_of):
    torch.manual_seed(0)
    model = chain(nn.ReLU, gain=2.0)

    def at_step(step):
        if step == 4:
            with torch.no_grad():
                model[2].bias -= 10.0

    cause = cause_of(model, "dead", at_step=at_step)
    assert "in step 4: updates moved them there." in cause


def test_saturation_is_told_by_the_weights_or_by_the_inputs(cause_of):
    torch.manual_seed(0)
    model = chain(nn.Tanh)
    with torch.no_grad():
        model[2].weight *= 60
    assert cause_of(model, "saturated").count("its weights are too large") == 1


def test_saturation_behind_large_outputs_is_told_by_these(cause_of):
    torch.manual_seed(0)
    parts = list(chain(nn.Tanh))
    parts[1] = nn.ReLU()
    with torch.no_grad():
        parts[0].weight *= 60
    cause = cause_of(nn.Sequential(*parts), "saturated")
    assert "before any update: its inputs, of " in cause


def test_what_holds_from_the_first_step_on_is_told_by_the_initial_weights(cause_of):
    torch.manual_seed(0)
    cause = cause_of(chain(nn.ReLU, depth=6, gain=0.1), "vanishing")
    assert "It is so from the first step on" in cause
    assert "initial weights" in cause


def test_a_loss_that_is_not_finite_is_told_from_layers_that_are_not(cause_of):
    torch.manual_seed(0)

    def of_zero(outputs, step):
        shares = (outputs * (1e6 if step == 5 else 1.0)).softmax(1)
        return -shares.log().mean()

    assert "the loss makes it, by a logarithm" in cause_of(
        chain(nn.ReLU, gain=2.0), "non-finite", loss=of_zero
    )


def test_a_weight_that_is_not_finite_is_not_told_by_the_loss(cause_of):
    torch.manual_seed(0)
    model = chain(nn.ReLU, gain=2.0)

    def at_step(step):
        if step == 5:
            model[2].weight.data[0, 0] = math.nan

    assert cause_of(model, "non-finite", at_step=at_step) == ""
