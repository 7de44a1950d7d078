"""From the third pass on, what is known of a graph is not found anew; the numbers stay the same."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.observation.junctions import planned_passes

NUMBERS = ["gradient_norm", "skip_gradient_norm", "branch_gradient_norm", "skip_branch_cosine"]
NUMBERS += ["input_gradient_norm", "residual_error", "skip_variance", "branch_variance"]


class PreNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.f = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x):
        return x + self.f(self.norm(x))


class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.skip = nn.Linear(6, 6)
        self.f = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    def forward(self, x):
        return self.f(x) + self.skip(x)


class Gated(nn.Module):
    """Its branch reads x by two layers."""

    def __init__(self):
        super().__init__()
        self.value, self.gate, self.out = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        return x + self.out(self.value(x) * self.gate(x).sigmoid())


class Scaled(PreNorm):
    alpha = 1.0

    def forward(self, x):
        return torch.add(x, self.f(self.norm(x)), alpha=self.alpha)


@pytest.fixture
def planned(monkeypatch):
    """How many passes were watched by a plan."""
    passes, original = [], planned_passes.PlannedPass
    monkeypatch.setattr(planned_passes, "PlannedPass", lambda *a: passes.append(1) or original(*a))
    return passes


def network(*blocks):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *[block() for block in blocks], nn.Linear(6, 3))


def trace(model, folder, steps, change=lambda step: None, backward=lambda loss: loss.backward()):
    """The same batch at each step, without an update."""
    x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    with gradflow.Tracer(model, folder) as tracer:
        for step in range(steps):
            change(step)
            model.zero_grad()
            backward(model(x).square().mean())
            tracer.step()
    return gradflow.open_run(folder).junctions.set_index(["step", "layer"])


@pytest.mark.parametrize("kind", [PreNorm, Projected, Gated], ids=lambda kind: kind.__name__)
def test_each_pass_has_the_numbers_of_the_first(kind, planned, tmp_path):
    rows = trace(network(PreNorm, kind, kind), tmp_path / "run", 5)
    assert len(planned) == 3, "from the third pass on"
    for step in range(1, 5):
        assert list(rows.loc[step].index) == list(rows.loc[0].index) == ["1", "2", "3"]
        for name in NUMBERS:
            first, later = (rows.loc[at][name].to_numpy(float) for at in (0, step))
            assert np.array_equal(first, later, equal_nan=True), name
        assert list(rows.loc[step].skip_type) == list(rows.loc[0].skip_type)


def test_another_factor_on_the_branch_is_noticed(planned, tmp_path):
    model = network(Scaled)

    def change(step):
        model[1].alpha = 1.0 if step < 4 else 0.5

    rows = trace(model, tmp_path / "run", 5, change)
    before, after = rows.loc[3], rows.loc[4]
    assert len(planned) == 2, "the third and the fourth"
    assert before.branch_variance.notna().all()
    assert after.branch_variance.isna().all()  # no operation has computed half of the branch
    model[1].alpha = 0.5
    alone = trace(model, tmp_path / "alone", 1).loc[0]
    assert after.branch_gradient_norm.tolist() == alone.branch_gradient_norm.tolist()


def test_a_backward_pass_that_fails_leaves_nothing_for_the_next(planned, tmp_path):
    model = network(PreNorm, PreNorm)
    fails = []

    def stop(gradient):
        if fails:
            raise RuntimeError("stop")

    model[0].register_forward_hook(lambda module, args, out: out.register_hook(stop) and None)

    def backward(loss):
        fails.append(1)
        with suppress(RuntimeError):
            loss.backward(retain_graph=True)
        fails.clear()
        loss.backward()

    failing = trace(model, tmp_path / "failing", 4, backward=backward)
    plain = trace(model, tmp_path / "plain", 4)
    assert planned
    for name in NUMBERS:
        assert failing.loc[3][name].tolist() == plain.loc[3][name].tolist(), name


def test_two_passes_through_one_graph_are_added_up_as_in_the_first_step(planned, tmp_path):
    def backward(loss):
        loss.backward(retain_graph=True)
        loss.backward()

    rows = trace(network(PreNorm, Projected), tmp_path / "run", 4, backward=backward)
    assert planned
    for name in NUMBERS[:6]:
        assert rows.loc[3][name].tolist() == rows.loc[0][name].tolist(), name
