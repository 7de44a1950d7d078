"""Outputs that do not depend on the input are told, from which layer on; others are not."""

import pytest
import torch
from torch import nn

import gradflow
from analyses.health.condition import NotAsked
from analyses.result import Verdict


class Averaging(nn.Module):
    """Takes the mean over the batch in place of that over places."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x):
        h = self.first(x).relu()
        h = self.second(h.mean(0, keepdim=True).expand_as(h)).relu()
        return self.head(h)


class ZeroHead(nn.Module):
    """Its head begins at 0, so all outputs are alike in step 0."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 32), nn.Linear(32, 10)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.body(x).relu())


class WithConstant(nn.Module):
    """Returns, beside what it is asked for, the same for every sample."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Linear(16, 10)

    def forward(self, x):
        return self.layers(x), torch.ones(len(x), 3)


def test_a_mean_over_the_batch_is_told_with_the_layer(ask):
    one = ask(ask.plan(model=Averaging))["collapsed"]
    assert one.verdict is Verdict.SUPPORTED
    assert one.layer == "second"
    assert one.since == 0


def test_dead_units_make_all_outputs_alike(ask):
    def dying():
        model = ask.perceptron()
        with torch.no_grad():
            model[2].bias.fill_(-10)
        return model

    one = ask(ask.plan(model=dying))["collapsed"]
    assert one.verdict is Verdict.SUPPORTED


@pytest.mark.parametrize(
    "options",
    [{}, {"model": ZeroHead}, {"change": lambda step, x: x * 1e-2}],
    ids=("usual", "head at 0", "small inputs"),
)
def test_outputs_that_differ_are_healthy(ask, options):
    assert ask(ask.plan(steps=30, **options))["collapsed"].verdict is Verdict.CONTRADICTED


def test_a_constant_beside_the_outputs_is_no_collapse(ask, tmp_path):
    model = WithConstant()
    with gradflow.Tracer(model, tmp_path, schedule=1) as tracer:
        for _ in range(12):
            model(torch.rand(8, 16))[0].square().sum().backward()
            tracer.step()
        tracer.end_epoch()
    found = ask.run(gradflow.open_run(tmp_path))["collapsed"]
    assert found.verdict is Verdict.CONTRADICTED


def test_where_the_inputs_are_alike_it_is_not_asked(ask):
    answer = ask(ask.plan(change=lambda step, x: x * 0, steps=10))["collapsed"]
    assert isinstance(answer, NotAsked)


class Attending(nn.Module):
    """Two pre-norm blocks over a class token and eight tokens made of the input.

    With `closed`, a mask leaves the class token alone to attend to, which is the same for all.
    """

    def __init__(self, closed=False):
        super().__init__()
        self.embed, self.token = nn.Linear(2, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(16, 10)
        self.mask = torch.zeros(9, 9, dtype=torch.bool)
        self.mask[:, 1:] = closed

    def forward(self, x):
        h = self.embed(x.unflatten(1, (8, 2)))
        h = torch.cat([self.token.expand(len(h), 1, 16), h], 1)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            given = norm(h)
            h = h + attention(given, given, given, attn_mask=self.mask, need_weights=False)[0]
        return self.head(h[:, 1:].mean(1))


def test_attention_on_one_token_is_told_though_the_outputs_differ(ask):
    one = ask(ask.plan(model=lambda: Attending(closed=True)))["collapsed"]
    assert one.verdict is Verdict.SUPPORTED
    assert one.layer == "attentions.0"
    assert "in 2 of 2 attention layers, as if all attended to one token" in one.cause
    assert "attention weights" in one.next_step


def test_attention_that_is_open_is_well(ask):
    assert ask(ask.plan(model=Attending))["collapsed"].verdict is Verdict.CONTRADICTED
