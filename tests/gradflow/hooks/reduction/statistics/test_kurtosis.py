"""Kurtosis by every way that works here, against scipy, closed forms and rational arithmetic."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import gradflow
from gradflow.hooks.reduction import by_torch
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics

RUNS = Path(__file__).parents[4] / "fixtures" / "runs"


pytestmark = pytest.mark.usefixtures("backend")


def kurtosis(x: torch.Tensor, axis: int | None = 1) -> float:
    return float(to_statistics([moments(x, axis)])["kurtosis"][0])


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exact(x: torch.Tensor) -> float:
    """The kurtosis in rational arithmetic."""
    values = [Fraction(value) for value in x.double().flatten().tolist()]
    mean = sum(values) / len(values)
    squares = [(value - mean) ** 2 for value in values]
    fourth = sum(square**2 for square in squares) / len(values)
    return float(fourth / (sum(squares) / len(values)) ** 2)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (lambda x: x, 3.0),
        (torch.special.ndtr, 1.8),  # uniform
        (torch.sign, 1.0),
        (lambda x: -torch.special.log_ndtr(x), 9.0),  # exponential
    ],
    ids=["normal", "uniform", "signs", "exponential"],
)
def test_distributions_have_their_closed_forms(transform, expected):
    assert kurtosis(transform(normal(1000, 40, 50))) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("axis", [None, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_heavy_tails_beside_channels_of_other_means_and_widths_agree_with_scipy(axis, dtype):
    x = normal(12, 7, 90).pow(3) * torch.linspace(0.1, 5, 7).view(1, 7, 1)
    x = (x + torch.linspace(-50, 50, 90)).to(dtype)
    expected = stats.kurtosis(x.double().numpy().ravel(), fisher=False)
    assert kurtosis(x, axis) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("axis", [None, 1, 2])
def test_a_mean_far_larger_than_the_deviations_costs_few_digits(mean, axis):
    x = mean + normal(5, 8, 30)
    # The mean itself is rounded to 1e-16 of its size.
    assert kurtosis(x, axis) == pytest.approx(exact(x), rel=1e-14 * max(mean, 1e2))


@pytest.mark.parametrize("place", [0, 1, -1], ids=["first", "second", "last"])
@pytest.mark.parametrize("axis", [None, 1, 2])
def test_one_outlier_in_a_million_is_seen_wherever_it_lies(place, axis):
    x = 1e-3 * normal(10, 100, 1000)
    x.view(-1)[place] = 1.0
    # The first element is the one about which powers are taken: the worst case.
    expected = stats.kurtosis(x.numpy().ravel(), fisher=False)
    assert expected > 1e5
    assert kurtosis(x, axis) == pytest.approx(expected, rel=3e-8 if place == 0 else 1e-11)


def test_a_single_other_element_has_the_closed_form():
    x = torch.ones(10, 10, 10)
    x[3, 4, 5] = 7.0
    others = x.numel() - 1
    # Two values, one of them with the share p = 1 / M: 1 / (p (1 - p)) - 3.
    assert kurtosis(x) == pytest.approx(1000**2 / others - 3, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-12, 1e12, 1e30])
def test_it_does_not_depend_on_the_scale(scale):
    x = (scale * normal(3, 4, 50)).float()
    rounding = 1e-12 if scale > 1e-38 else 1e-3  # these have fewer digits
    assert kurtosis(x) == pytest.approx(exact(x), rel=1e-12)
    assert kurtosis(x) == pytest.approx(kurtosis(normal(3, 4, 50)), rel=max(rounding, 1e-5))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e30])
@pytest.mark.parametrize("shape", [(1,), (3, 7), (4, 5, 33), (2, 200, 400)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_elements_have_none(value, shape, dtype):
    for axis in (None, *range(len(shape))):
        assert math.isnan(kurtosis(torch.full(shape, value, dtype=dtype), axis))
        joined = moments(torch.full(shape, value, dtype=dtype), axis)
        joined = joined.join(moments(torch.full(shape, value, dtype=dtype), axis))
        assert math.isnan(to_statistics([joined])["kurtosis"][0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 5, -1])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_value_that_is_not_finite_makes_it_nan(bad, place, axis):
    x = normal(3, 7)
    x.view(-1)[place] = bad
    assert math.isnan(kurtosis(x, axis))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_share_a_large_tensor(threads, layout, monkeypatch):
    x = (5 + normal(8, 16, 50, 50)).pow(2).float().to(memory_format=layout)
    expected = stats.kurtosis(x.double().numpy().ravel(), fisher=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert kurtosis(x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_joined_batches_have_that_of_the_whole_batch(axis, mean):
    parts = [mean + normal(n, 6, 40, seed=n).pow(3) + n for n in (4, 1, 9, 2)]
    joined = moments(parts[0], axis)
    for part in parts[1:]:
        joined = joined.join(moments(part, axis))
    expected = stats.kurtosis(torch.cat(parts).numpy().ravel() - mean, fisher=False)
    assert to_statistics([joined])["kurtosis"][0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("factor", [1e-3, 0.5, 1024.0])
def test_scaled_gradients_have_the_kurtosis_of_the_unscaled(factor):
    x = 2 + normal(4, 6, 40)
    scaled = moments(x, 1).scaled(factor).join(moments(3 * x, 1).scaled(factor))
    expected = kurtosis(torch.cat([x, 3 * x]))
    assert to_statistics([scaled])["kurtosis"][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-9, 1e-12])
def test_sums_in_float32_give_the_kurtosis_or_none(scale, backend, monkeypatch):
    if backend == "compiled":
        pytest.skip("the loops sum in float64")
    monkeypatch.setattr(by_torch, "sum_dtype", lambda x: torch.float32)  # as on mps
    x = (scale * normal(30, 40)).float()
    found = kurtosis(x)
    assert math.isnan(found) == (scale < 1e-8)
    assert math.isnan(found) or found == pytest.approx(exact(x), rel=1e-4)


def test_the_run_holds_it_for_outputs_and_gradients_under_accumulation(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    parts = [torch.randn(5, 3), torch.randn(2, 3)]
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for part in parts:
            model(part).pow(2).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    hidden = model[1](model[0](torch.cat(parts)))
    output = model[2](hidden)
    (gradient,) = torch.autograd.grad(output.pow(2).sum(), hidden)
    for rows, x in ((run.activations, hidden), (run.gradients, gradient)):
        expected = stats.kurtosis(x.detach().double().numpy().ravel(), fisher=False)
        assert rows.set_index("layer")["kurtosis"]["1"] == pytest.approx(expected, rel=1e-6)


def test_the_run_has_no_value_for_equal_elements_and_nan_beside_a_nan(tmp_path):
    model = nn.Sequential(nn.Hardtanh(0, 1), nn.Identity(), nn.Softplus())
    with gradflow.Tracer(model, tmp_path / "run", observe=["0", "2"]) as tracer:
        for value in (-1.0, math.nan):
            x = torch.full((2, 3), value)
            x[0, 0] = -1.0
            model(x.requires_grad_()).sum().backward()
            tracer.step()
    raw = gradflow.open_run(tmp_path / "run").activations
    found = dict(zip(zip(raw["layer"], raw["step"], strict=True), raw["kurtosis"], strict=True))
    assert found["0", 0] is None or np.isnan(found["0", 0])
    assert math.isnan(found["0", 1])
    from pyarrow import parquet  # noqa: PLC0415

    (part,) = (tmp_path / "run" / "activations").iterdir()
    column = parquet.read_table(part).to_pydict()
    by_row = dict(
        zip(zip(column["layer"], column["step"], strict=True), column["kurtosis"], strict=True)
    )
    assert by_row["0", 0] is None
    assert by_row["2", 1] is not None
    assert math.isnan(by_row["2", 1])


@pytest.mark.parametrize("version", [1, 2, 3])
def test_runs_recorded_before_have_none(version):
    run = gradflow.open_run(RUNS / f"version-{version}" / "tiny-seed0")
    for rows in (run.activations, run.gradients):
        assert len(rows) > 0
        assert rows["kurtosis"].isna().all()
