"""The first non-finite value is located: step, layer, direction."""

import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError


class Poison(nn.Module):
    """At a chosen call puts a value into the output, or into the gradient that passes."""

    def __init__(self, call, direction, value):
        super().__init__()
        self.call, self.direction, self.value, self.calls = call, direction, value, 0

    def forward(self, x):
        self.calls += 1
        if self.calls - 1 != self.call:
            return x
        mark = torch.zeros_like(x)
        mark[0, :2] = 1
        if self.direction == "forward":
            return x.masked_fill(mark.bool(), self.value)
        y = x.clone()
        y.register_hook(lambda g: g.masked_fill(mark.bool(), self.value))
        return y


def train(folder, poison, *, steps=40, **options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), poison, nn.Tanh()), nn.Linear(4, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(5, 3)).sum().backward()
            optimizer.step()


@pytest.mark.parametrize(
    ("direction", "value", "layer"),
    [
        ("forward", math.nan, "1.2"),
        ("backward", math.nan, "1.0"),
        ("backward", math.inf, "1.0"),
    ],
)
def test_first_non_finite_value_is_named_in_the_run(tmp_path, direction, value, layer):
    # Forward it is the layer after the poison that shows it, backward the layer before.
    train(tmp_path / "run", Poison(18, direction, value))
    found = gradflow.open_run(tmp_path / "run").description["first_nonfinite"]
    expected = {"epoch": 1, "step": 18, "layer": layer, "direction": direction, "count": 2}
    assert found == expected


def test_a_run_can_stop_at_it_with_all_rows_on_disk(tmp_path):
    sentence = r"step 18 has 2 non-finite values in the gradient .* layer 1\.0 \(backward pass\)"
    with pytest.raises(TracingError, match=sentence):
        train(tmp_path / "run", Poison(18, "backward", math.nan), stop_on_nonfinite=True)
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "failed"
    assert run.description["first_nonfinite"]["step"] == 18
    assert sorted(set(run.gradients.step)) == list(range(19))
    last = run.gradients[run.gradients.step == 18].set_index("layer").nonfinite
    # Two values of one sample before the poison; from there on all four features of that sample.
    assert last.to_dict() == {"2": 0, "1.2": 0, "1.0": 2, "0": 4}


def test_only_recorded_steps_are_checked(tmp_path):
    # One bad gradient makes all later outputs bad: the first recorded step shows them.
    with pytest.raises(TracingError, match=r"step 8 .* output of layer 0 \(forward pass\)"):
        train(tmp_path / "run", Poison(7, "backward", math.nan), schedule=2, stop_on_nonfinite=True)
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["first_nonfinite"]["direction"] == "forward"


def test_a_finite_run_has_no_such_entry(tmp_path):
    train(tmp_path / "run", Poison(-1, "forward", 0.0), stop_on_nonfinite=True)
    assert "first_nonfinite" not in gradflow.open_run(tmp_path / "run").description
