"""Outputs and gradients that are as usual in most steps, and in some are not."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.deferred.reductions import Reductions

pytestmark = pytest.mark.skipif(cpu.loops_module() is None, reason="needs the compiled loops")

USUAL = 4
"""Steps after which all is known of a layer."""
ODD = {
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "double": lambda x: x.double(),
    "half": lambda x: x.bfloat16(),
    "other shape": lambda x: x[:, :3],
    "view": lambda x: x.view(-1).view(x.shape),
    "expanded": lambda x: x[:1].expand(x.shape),
    "empty": lambda x: x[:0],
}


def double(gradient):
    gradient.mul_(2)


class Changing(nn.Module):
    """A layer whose output changes its look by what `change` does; it also keeps its gradient."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.change = None

    def forward(self, x):
        x = x * self.factor
        x = x if self.change is None else self.change(x)
        self.seen = x.detach().double()
        self.output = x
        x.register_hook(lambda gradient: setattr(self, "gradient", gradient.detach().double()))
        return x


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 6), Changing(), nn.Linear(6, 6)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(self.first(x)).float()))


@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_as_usual_is_right_in_that_step_and_those_after_it(kind, tmp_path):
    torch.manual_seed(0)
    model, expected, arrived = Model(), {}, {}
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for step in range(USUAL + 4):
            model.layer.change = ODD[kind] if step in (USUAL, USUAL + 1) else None
            model(torch.randn(2, 4, 6)).square().sum().backward()
            if model.layer.seen.numel():
                expected[step] = model.layer.seen.norm().item()
                arrived[step] = model.layer.gradient.norm().item()
            tracer.step()
            model.zero_grad()
    run = gradflow.open_run(tmp_path / "run")
    for rows, norms in ((run.activations, expected), (run.gradients, arrived)):
        found = rows[rows.layer == "layer"].set_index("step")["norm"].to_dict()
        assert found == pytest.approx(norms, rel=1e-5)


def test_of_what_is_as_usual_only_the_first_gradient_of_a_pass_is_looked_at(tmp_path, monkeypatch):
    looked_at, original = [], Reductions.reduce
    monkeypatch.setattr(
        Reductions, "reduce", lambda *a, **k: looked_at.append(a) or original(*a, **k)
    )
    model = Model()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(USUAL):
            looked_at.clear()
            model(torch.randn(2, 4, 6)).square().sum().backward()
            tracer.step()
    # The first gradient of a backward pass, which is not known before.
    assert [habit.name for *_, habit in looked_at] == ["last"]
    assert len(gradflow.open_run(tmp_path / "run").gradients) == 3 * USUAL


def test_a_usual_gradient_that_is_overwritten_is_missing_once_and_right_from_then_on(tmp_path):
    torch.manual_seed(0)
    model, expected = Model(), {}
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for step in range(USUAL + 3):
            out = model(torch.randn(2, 4, 6))
            if step >= USUAL:
                # A hook after those of the tracer, which have taken the gradient as it was.
                model.layer.output.register_hook(double)
            out.square().sum().backward()
            expected[step] = model.layer.gradient.norm().item()
            said = pytest.warns(UserWarning, match="layer is missing in one step")
            with said if step == USUAL else nullcontext():
                tracer.step()
    del expected[USUAL]
    rows = gradflow.open_run(tmp_path / "run").gradients
    found = rows[rows.layer == "layer"].set_index("step")["norm"].to_dict()
    assert found == pytest.approx(expected, rel=1e-5)
