"""The closed forms have the values printed in their papers, and those of small random networks."""

import numpy as np
import pytest

from analyses.theory import (
    HE_GAIN,
    PYTORCH_DEFAULT_GAIN,
    batchnorm_growth,
    batchnorm_plain_correlation,
    batchnorm_residual_moments,
    kernel,
    kernel_slope,
    plain_correlation,
    relu_growth,
    residual_correlation,
)


@pytest.mark.parametrize(("batch", "growth"), [(8, 1.788), (16, 1.590), (32, 1.522), (128, 1.480)])
def test_mean_field_growth_has_the_published_values(batch, growth):
    assert batchnorm_growth(batch) == pytest.approx(growth, abs=6e-4)


def test_mean_field_growth_tends_to_its_limit():
    assert batchnorm_growth(10**7) == pytest.approx(np.pi / (np.pi - 1), abs=1e-5)


@pytest.mark.parametrize("correlation", [-0.9, -0.3, 0.0, 0.4, 0.95])
def test_kernels_are_the_moments_of_correlated_gaussians(correlation):
    generator = np.random.default_rng(0)
    x, z = generator.standard_normal((2, 400_000))
    y = correlation * x + np.sqrt(1 - correlation**2) * z
    both = (x > 0) & (y > 0)
    assert kernel_slope(correlation) == pytest.approx(2 * both.mean(), abs=0.01)
    assert kernel(correlation) == pytest.approx(2 * (x * y * both).mean(), abs=0.02)


@pytest.mark.parametrize(
    ("depth", "value"), [(1, 0.500), (2, 0.302), (5, 0.105), (10, 0.034), (20, 0.008)]
)
def test_plain_gradients_decorrelate_as_published(depth, value):
    assert plain_correlation(depth) == pytest.approx(value, abs=6e-4)


def test_residual_gradients_decorrelate_as_published():
    assert residual_correlation(10) == pytest.approx(0.140, abs=6e-4)
    variance, correlation = batchnorm_residual_moments(20)
    assert variance == pytest.approx(42.9, abs=0.05)
    assert correlation == pytest.approx(0.177, abs=6e-4)
    assert batchnorm_plain_correlation(5) == 1 / 32


def test_no_layer_changes_nothing():
    assert plain_correlation(0) == residual_correlation(0) == batchnorm_plain_correlation(0) == 1
    assert batchnorm_residual_moments(0) == (1, 1)


@pytest.mark.parametrize(("gain", "factor"), [(HE_GAIN, 1.0), (PYTORCH_DEFAULT_GAIN, 1 / 6)])
def test_relu_layers_multiply_the_squared_gradient_by_half_the_gain(gain, factor):
    assert relu_growth(gain) == pytest.approx(factor)
    generator = np.random.default_rng(0)
    width, ratios = 400, []
    for _ in range(20):
        weight = generator.standard_normal((width, width)) * np.sqrt(gain / width)
        open_units = generator.random(width) < 0.5
        gradient = generator.standard_normal(width)
        back = weight.T @ (gradient * open_units)
        ratios.append(back @ back / (gradient @ gradient))
    assert np.mean(ratios) == pytest.approx(factor, rel=0.05)
