"""Updates that bfloat16 cannot hold, and gradients that float16 cannot, are told."""

import numpy as np
import pytest
import torch
from torch import nn

from analyses.health.condition import NotAsked
from analyses.health.conditions.precision import SMALLEST_NORMAL, PrecisionBounds
from analyses.result import Verdict


@pytest.mark.parametrize(
    ("rule", "rate"), [(torch.optim.SGD, 1e-5), (torch.optim.Adam, 1e-5)], ids=("SGD", "Adam")
)
def test_small_updates_of_bfloat16_weights_are_lost(ask, rule, rate):
    answers = ask(ask.plan(dtype=torch.bfloat16, rule=rule, rate=rate))
    one = answers["lost-to-rounding"]
    assert one.verdict is Verdict.SUPPORTED
    assert "bfloat16 holds 8 bits" in one.cause
    assert "learning rate of 1.0e-5" in one.cause
    assert one.since == 0


def test_usual_updates_of_bfloat16_weights_are_held(ask):
    one = ask(ask.plan(dtype=torch.bfloat16, rule=torch.optim.Adam, rate=3e-3))["lost-to-rounding"]
    assert one.verdict is Verdict.CONTRADICTED


def test_a_rate_that_is_lowered_at_the_end_leaves_it_open(ask):
    def anneal(optimizer, step):
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = 3e-3 if step < 30 else 1e-6

    plan = ask.plan(dtype=torch.bfloat16, rule=torch.optim.Adam, zero=anneal)
    assert ask(plan)["lost-to-rounding"].verdict is Verdict.INCONCLUSIVE


def test_float32_weights_are_not_asked(ask):
    answers = ask(ask.plan())
    for key in ("lost-to-rounding", "underflow"):
        assert isinstance(answers[key], NotAsked)
        assert not answers[key].applies


def test_a_rate_of_a_billionth_is_told_as_such_and_not_as_rounding(ask):
    answers = ask(ask.plan(rate=1e-9))
    assert answers["stalled"].verdict is Verdict.SUPPORTED
    assert "The learning rate of 1.0e-9 is the cause" in answers["stalled"].cause


def test_few_weights_can_move_at_the_bound():
    weights = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    # The update, equal for all elements, at which what moves has the bound's share of the norm.
    sizes = 2.0 ** np.arange(-16, -2, 0.25)
    moved = [(weights + size) != weights for size in sizes]
    norms = [float(((weights + size) - weights).float().norm()) for size in sizes]
    ratios = np.array(norms) / float(weights.float().norm()) / 2.0**-7
    at = np.abs(ratios - PrecisionBounds().lost).argmin()
    assert 0.01 < moved[at].float().mean() < 0.15


def half_loss(factor):
    return lambda logits, y: factor * nn.functional.cross_entropy(logits, y)


def test_gradients_below_the_smallest_number_of_float16_are_told(ask):
    plan = ask.plan(dtype=torch.float16, rate=1e-3, loss=half_loss(1e-4))
    one = ask(plan)["underflow"]
    assert one.verdict is Verdict.SUPPORTED
    assert one.value < SMALLEST_NORMAL
    assert "no scale of the loss" in one.cause


def test_gradients_that_float16_holds_are_healthy(ask):
    plan = ask.plan(dtype=torch.float16, rate=1e-2)
    assert ask(plan)["underflow"].verdict is Verdict.CONTRADICTED
