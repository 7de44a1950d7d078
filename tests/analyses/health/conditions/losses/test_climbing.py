"""A loss that is climbed is told from steps that are too large, which overshoot."""

import pytest
import torch
from torch import nn

from analyses.health.conditions import read_health
from analyses.health.conditions.losses.climbing import climb_of
from analyses.health.conditions.updates import whole_updates
from analyses.result import Verdict


class Uphill(torch.optim.SGD):
    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr, maximize=True)


class AdamUphill(torch.optim.Adam):
    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr, maximize=True)


class Momentum(torch.optim.SGD):
    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr, momentum=0.9)


def test_an_ascent_whose_steps_grow_with_the_loss_is_not_called_too_large(ask, run_of):
    plan = ask.plan(rule=Uphill, rate=0.3)
    run = run_of(plan)
    found = {one.condition: one for one in read_health(run)}
    assert (whole_updates(run) > 0.1).sum() >= 3  # it is asked of steps that are large
    assert found["overshooting"].verdict is Verdict.CONTRADICTED
    assert "updates climb the loss" in found["overshooting"].note
    assert found["spiking"].verdict is Verdict.CONTRADICTED
    assert "updates climb the loss" in found["non-finite"].cause
    assert "maximize=True" in found["non-finite"].next_step


def test_a_loss_that_rises_under_small_steps_asks_for_its_sign(ask):
    one = ask(ask.plan(rule=AdamUphill, rate=0.01))["not-learning"]
    assert one.verdict is Verdict.SUPPORTED
    assert "It rises" in one.cause
    assert "updates climb the loss" in one.cause
    assert "maximize=True" in one.next_step


@pytest.mark.parametrize("rate", [1.0, 5.0, 50.0])
@pytest.mark.parametrize("rule", [torch.optim.SGD, Momentum, torch.optim.Adam])
def test_steps_that_are_too_large_climb_nothing(ask, run_of, rule, rate):
    found = read_health(run_of(ask.plan(rule=rule, rate=rate)))
    assert not any("climb" in one.cause + one.note for one in found)


def test_a_training_that_learns_climbs_nothing(ask, run_of):
    plan = ask.plan(rate=0.3)
    assert climb_of(run_of(plan), 59) is None


def test_noise_in_few_losses_is_no_climb(ask, run_of):
    plan = ask.plan(rate=0.0, model=lambda: nn.Linear(16, 10))
    assert all(climb_of(run_of(plan), step) is None for step in range(60))
