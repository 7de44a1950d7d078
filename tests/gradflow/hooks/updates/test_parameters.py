import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine
from torch import nn

import gradflow
from gradflow.hooks.updates.parameters import ParameterRecorder


def test_cosine_is_with_the_gradient_of_the_step_before(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
            gradients.append(model[0].weight.grad.flatten().numpy().copy())
            optimizer.step()
    rows = gradflow.open_run(tmp_path / "run").parameters
    cosines = rows[rows.parameter == "0.weight"].gradient_cosine.to_numpy()
    expected = [1 - cosine(a, b) for a, b in pairwise(gradients)]
    assert math.isnan(cosines[0])
    assert list(cosines[1:]) == pytest.approx(expected, rel=1e-10)


def test_a_gradient_of_zero_has_norm_zero_and_no_direction(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(2):
            (model(torch.ones(1, 2)) * 0).sum().backward()
            tracer.step()
    rows = gradflow.open_run(tmp_path / "run").parameters
    assert set(rows.gradient_norm) == {0.0}
    assert rows.gradient_cosine.isna().all()


def test_without_an_optimizer_the_update_is_what_moved_between_two_steps(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2)).double()
    before = {name: one.detach().norm().item() for name, one in model.named_parameters()}
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
        with torch.no_grad():
            model[0].weight.sub_(0.5 * model[0].weight.grad)
        tracer.step()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index("parameter")
    assert rows.weight_norm.to_dict() == pytest.approx(before, rel=1e-12)
    # The gradient is 1 in each of four elements; the bias did not move.
    assert rows.update_norm.to_dict() == pytest.approx({"0.weight": 1.0, "0.bias": 0.0})


def test_sparse_gradients_and_frozen_parameters():
    model = nn.Module()
    model.table = nn.Embedding(5, 3, sparse=True)
    model.frozen = nn.Linear(2, 2).requires_grad_(False)
    model.table(torch.tensor([1, 1, 4])).sum().backward()
    recorder = ParameterRecorder(model)
    recorder.begin_update(record=True, keep_weights=False)
    recorder.measure_gradients(None, record=True, keep_gradients=True)
    values = recorder.after_update(received_as_left=False)
    assert list(values) == ["table.weight"]
    # Row 1 was used twice, row 4 once: three times 2^2 and three times 1^2.
    assert float(values["table.weight"]["gradient_norm"]) == pytest.approx(np.sqrt(15))


def test_a_layer_unfrozen_during_training_is_measured_from_then_on(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        for step in range(4):
            model[0].requires_grad_(step >= 2)
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    frozen = run.parameters[run.parameters.parameter == "0.weight"]
    assert list(frozen.step) == [2, 3]
    assert frozen.gradient_norm.gt(0).all()
    assert frozen.update_norm.gt(0).all()
    # The frozen layer's output needs no gradient, and has no row until it does.
    assert list(run.gradients[run.gradients.layer == "0"].step) == [2, 3]
    assert list(run.activations[run.activations.layer == "0"].step) == [0, 1, 2, 3]


def test_a_step_within_a_step_ends_one_step(tmp_path):
    class Doubling(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            return super().step(closure)

    model = nn.Sequential(nn.Linear(2, 2)).double()
    torch.optim.SGD(model.parameters(), lr=0.1)  # torch wraps the base class's step when it is used
    optimizer = Doubling(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
            optimizer.step()
    rows = gradflow.open_run(tmp_path / "run").parameters
    assert sorted(set(rows.step)) == [0, 1]
    assert list(rows.update_norm) == pytest.approx(list(0.2 * rows.gradient_norm), rel=1e-10)
