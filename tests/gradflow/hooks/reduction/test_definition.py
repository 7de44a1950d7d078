"""The plain definitions against numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from gradflow.hooks.reduction import definition

SHAPE = (4, 3, 5, 2)  # [N, C, H, W]


@pytest.fixture
def x() -> torch.Tensor:
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[:, 1] = 0.0
    return values + torch.tensor([3.0, 0.0, -1.0]).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mean", np.mean),
        ("std", np.std),
        ("rms", lambda a: math.sqrt(np.mean(a * a))),
        ("norm", lambda a: np.linalg.norm(a.ravel())),
        ("kurtosis", lambda a: stats.kurtosis(a.ravel(), fisher=False)),
        ("abs_max", lambda a: np.abs(a).max()),
        ("zero_fraction", lambda a: np.mean(a == 0)),
        ("nonfinite", lambda a: np.count_nonzero(~np.isfinite(a))),
    ],
)
def test_agrees_with_numpy(x, name, reference):
    assert float(getattr(definition, name)(x)) == pytest.approx(reference(x.numpy()), rel=1e-10)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("dead_channels", lambda a: sum(not a[:, c].any() for c in range(a.shape[1]))),
        ("channel_squared_mean", lambda a: np.mean(a.mean((0, 2, 3)) ** 2)),
        ("channel_variance", lambda a: np.mean(a.var((0, 2, 3)))),
    ],
)
def test_channel_statistics_agree_with_numpy(x, name, reference):
    value = getattr(definition, name)(x, 1)
    assert float(value) == pytest.approx(reference(x.numpy()), rel=1e-10)


def test_nonfinite_counts_nan_and_both_infinities():
    x = torch.tensor([1.0, math.nan, math.inf, -math.inf, 0.0])
    assert int(definition.nonfinite(x)) == 3


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, math.inf])
def test_equal_elements_have_no_kurtosis(value):
    assert math.isnan(float(definition.kurtosis(torch.full((3, 7), value))))


def test_relu_of_a_standard_normal_has_its_closed_form():
    # Mean 1 / sqrt(2 pi), variance (1 - 1/pi) / 2, half of it zero.
    x = torch.randn(4_000_000, generator=torch.Generator().manual_seed(1)).relu().double()
    assert float(definition.mean(x)) == pytest.approx(1 / math.sqrt(2 * math.pi), abs=1e-3)
    assert float(definition.std(x)) ** 2 == pytest.approx((1 - 1 / math.pi) / 2, abs=1e-3)
    assert float(definition.zero_fraction(x)) == pytest.approx(0.5, abs=1e-3)
