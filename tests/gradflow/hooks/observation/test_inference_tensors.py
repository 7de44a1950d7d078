"""What was made in inference mode, or not yet, has no versions and takes no part in autograd."""

import pytest
import torch
from torch import nn

import gradflow


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        with torch.inference_mode():
            return self.inner(x)


class Network(nn.Module):
    """Passes on what a frozen part has computed, through a block and a layer in place."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Sequential(Frozen())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.frozen(x).clone())


def trained(model, folder, steps=3):
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    torch.manual_seed(1)
    inputs = [torch.randn(5, 4) for _ in range(steps)]
    outputs = []
    with gradflow.Tracer(model, folder, optimizer=optimizer):
        for x in inputs:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            outputs.append(model.frozen(x))
            optimizer.step()
    return gradflow.open_run(folder), outputs


def test_an_output_made_in_inference_mode_is_recorded_like_any_other(tmp_path):
    run, outputs = trained(Network(), tmp_path / "run")
    rows = run.activations.groupby("layer")
    assert set(rows.groups) == {"frozen.0", "head"}
    found = rows.get_group("frozen.0")
    assert [*found.step] == [0, 1, 2]
    assert [*found.norm] == pytest.approx([float(2**0.5 * one.norm()) for one in outputs])
    assert set(run.gradients.layer) == {"head"}


def test_parameters_made_in_inference_mode_are_taken_for_frozen(tmp_path):
    model = Network()
    with torch.inference_mode():
        model.frozen = nn.Sequential(Frozen())
    run, _ = trained(model, tmp_path / "run")
    assert set(run.parameters.parameter) == {"head.weight", "head.bias"}
    assert set(run.gradients.step) == {0, 1, 2}


def test_a_lazy_layer_that_has_not_run_is_no_obstacle(tmp_path):
    model = Network()
    model.unused = nn.LazyLinear(3)
    run, _ = trained(model, tmp_path / "run")
    assert set(run.gradients.step) == {0, 1, 2}
    assert "unused.weight" not in set(run.parameters.parameter)


def test_lazy_layers_are_traced_from_their_first_step_on(tmp_path):
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    expected = []
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(3):
            model.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            expected.append(float(model[0].weight.grad.norm()))
            tracer.step()
    rows = gradflow.open_run(tmp_path / "run").parameters
    assert [*rows[rows.parameter == "0.weight"].gradient_norm] == pytest.approx(expected)
