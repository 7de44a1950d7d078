"""What is read by torch, of half precision and complex: rounded only once it is read."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu
from gradflow.hooks.updates.measures import grouped


@pytest.fixture(params=["alone", "in groups"])
def by_torch(request, monkeypatch):
    """Read weights by torch one by one, as with numba's loops for other dtypes, or in groups."""
    if request.param == "in groups":
        monkeypatch.setattr(cpu, "loops_module", lambda: None)
        monkeypatch.setattr(grouped, "_trusted", {})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 300.0])
def test_cosines_and_updates_are_those_of_the_numbers_that_were_there(
    by_torch, tmp_path, dtype, scale
):
    torch.manual_seed(0)
    model = nn.Linear(64, 32, bias=False).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 / scale)
    gradients, weights = [], [model.weight.detach().double().clone()]
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        for _ in range(4):
            optimizer.zero_grad()
            (model(torch.randn(6, 64).to(dtype)).float().sum() * scale).backward()
            gradients.append(model.weight.grad.double().clone())
            optimizer.step()
            weights.append(model.weight.detach().double().clone())
    found = gradflow.open_run(tmp_path / "run").parameters
    cosines = [float((a * b).sum() / (a.norm() * b.norm())) for a, b in pairwise(gradients)]
    assert all(0 < one.norm() < float("inf") for one in gradients)
    assert list(found.gradient_cosine)[1:] == pytest.approx(cosines, rel=1e-6)
    updates = [float((b - a).norm()) for a, b in pairwise(weights)]
    assert list(found.update_norm) == pytest.approx(updates, rel=1e-6)


class Rotation(nn.Module):
    """x times a complex weight, elementwise."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, dtype=torch.complex64))

    def forward(self, x):
        return torch.view_as_real(x * self.weight)


def test_cosines_of_complex_weights_are_those_of_their_parts(tmp_path):
    torch.manual_seed(0)
    model = Rotation()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gradients = []
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, modes="all"):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 64)).square().sum().backward()
            gradients.append(torch.view_as_real(model.weight.grad.clone()).double())
            optimizer.step()
    found = gradflow.open_run(tmp_path / "run").parameters
    cosines = [float((a * b).sum() / (a.norm() * b.norm())) for a, b in pairwise(gradients)]
    assert list(found.gradient_cosine)[1:] == pytest.approx(cosines, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e-23, 1.0, 1e20])
def test_products_in_groups_neither_underflow_nor_overflow(dtype, scale):
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, n, generator=generator).mul(scale).to(dtype) for n in (7, 300, 1)]
    first, second = ([one[place] for one in pairs] for place in (0, 1))
    expected = [float((a.double() * b.double()).sum()) for a, b in pairs]
    found = grouped.products(first, second)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
