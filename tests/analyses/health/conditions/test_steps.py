"""Steps that are too large, and gradients that nobody zeroes, are told; usual loops are not."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from analyses.health.conditions.steps import StepBounds, overshooting_answer
from analyses.health.readings import Reading
from analyses.result import Verdict


def test_forgotten_zeroing_is_told_before_its_effects(ask):
    plan = ask.plan(zero=lambda optimizer, step: None)
    one = ask(plan)["accumulating"]
    assert one.verdict is Verdict.SUPPORTED
    assert one.since == 1
    assert "zero_grad() is not called" in one.cause


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"passes": 3},
        {"zero": lambda optimizer, step: optimizer.zero_grad(set_to_none=False)},
        {"zero": lambda optimizer, step: optimizer.zero_grad() if step % 2 == 0 else None},
    ],
    ids=("zeroed", "accumulated within a step", "set to zero", "every other step"),
)
def test_gradients_that_are_zeroed_are_healthy(ask, options):
    one = ask(ask.plan(steps=30, **options))["accumulating"]
    assert one.verdict is Verdict.CONTRADICTED


def test_it_says_of_few_steps_that_it_cannot_tell(ask):
    one = ask(ask.plan(steps=4, zero=lambda optimizer, step: None))["accumulating"]
    assert one.verdict is Verdict.INCONCLUSIVE


def test_steps_too_large_are_told_with_rate_and_first_step(ask):
    def late(optimizer, step):
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = 0.05 if step < 20 else 30.0

    one = ask(ask.plan(zero=late))["overshooting"]
    assert one.verdict is Verdict.SUPPORTED
    assert 20 <= one.since <= 22
    assert "at a learning rate of 30" in one.cause
    assert "rises to" in one.cause


@pytest.mark.parametrize("rule", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_rate_hundreds_of_times_too_large_is_told_under_every_rule(ask, rule):
    rate = 100.0 if rule is torch.optim.SGD else 1.0
    one = ask(ask.plan(rule=rule, rate=rate))["overshooting"]
    assert one.verdict is Verdict.SUPPORTED


# The norm of an update is half of that of the weights at first, and a tenth of a percent later.
LEAPS = [1.4, *np.linspace(3.2, 3.0, 30), *np.linspace(1.3, 1.15, 30)]


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        (LEAPS, Verdict.SUPPORTED),
        ([*LEAPS, *np.linspace(1.15, 0.6, 30)], Verdict.CONTRADICTED),
        ([1.4, *np.linspace(2.0, 1.9, 30), *np.linspace(1.9, 1.0, 30)], Verdict.CONTRADICTED),
    ],
    ids=("not much below its beginning", "far below it", "no leap"),
)
def test_a_loss_that_leaps_and_comes_back_has_not_been_learnt_from(losses, verdict):
    found = overshooting_answer(made(losses), StepBounds.overshooting, 20)
    assert found.verdict is verdict
    if verdict is Verdict.SUPPORTED:
        assert found.since == 0
        assert "rises to 3.2, and ends at" in found.cause


@dataclass
class Made:
    """A run of which these tables are known."""

    steps: pd.DataFrame
    parameters: pd.DataFrame
    layers: pd.DataFrame
    description: ClassVar = {}


def made(losses):
    """A run of one weight of norm 1, whose first five updates are half of it."""
    steps = np.arange(len(losses))
    rows = pd.DataFrame({"step": steps, "epoch": 0, "parameter": "0.weight", "optimizer": "SGD"})
    updates = np.where(steps < 5, 0.5, 1e-3)
    rows = rows.assign(
        group=0,
        learning_rate=1.0,
        weight_norm=1.0,
        gradient_norm=1.0,
        gradient_cosine=-0.1,
        update_norm=updates,
        update_to_weight=updates,
    )
    layers = {"layer": ["0"], "type": ["Linear"], "role": ["linear"], "parameters": [8]}
    return Made(
        steps=pd.DataFrame({"step": steps, "loss": losses}),
        parameters=rows,
        layers=pd.DataFrame(layers),
    )


def test_without_a_loss_it_cannot_be_told_whether_large_steps_do_harm(ask):
    one = ask(ask.plan(rate=100.0, log=False))["overshooting"]
    assert one.verdict is Verdict.INCONCLUSIVE
    assert "tracer.log(loss=loss)" in one.next_step


class Adapter(nn.Module):
    """A frozen layer with a low-rank addition that begins at 0, and a head that begins at 0."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(16, 32).requires_grad_(False)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 32, bias=False)
        self.head = nn.Linear(32, 10)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head((self.frozen(x) + self.up(self.down(x))).relu())


def warm_up(optimizer, step):
    optimizer.zero_grad()
    optimizer.param_groups[0]["lr"] = 0.01 * min(1.0, (step + 1) / 20)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0.1},
        {"rule": torch.optim.Adam, "rate": 0.01},
        {"rule": torch.optim.Adam, "rate": 0.01, "zero": warm_up},
        {"rule": torch.optim.Adam, "rate": 0.01, "model": Adapter},
        {"rule": torch.optim.SGD, "rate": 0.1, "model": Adapter},
    ],
    ids=("SGD", "Adam", "warm-up", "weights at 0, Adam", "weights at 0, SGD"),
)
def test_first_steps_of_healthy_trainings_are_not_too_large(ask, options):
    one = ask(ask.plan(**options))["overshooting"]
    assert isinstance(one, Reading)
    assert one.verdict is Verdict.CONTRADICTED


def test_where_the_objective_moves_a_loss_that_falls_does_not_excuse_large_steps():
    run = made(np.linspace(2.0, 0.5, 60))
    assert overshooting_answer(run, 0.1, 20).verdict is Verdict.CONTRADICTED
    run.description = {"objective": "moving"}
    assert overshooting_answer(run, 0.1, 20).verdict is Verdict.INCONCLUSIVE
