"""The closed forms beside values worked out apart from them, and random draws of what they tell."""

import math

import numpy as np
import pytest

from analyses.statistics import theory
from analyses.statistics.theory import HE_GAIN, PYTORCH_DEFAULT_GAIN


@pytest.mark.parametrize("correlation", [-0.9, -0.5, 0.0, 0.3, 0.95])
def test_kernels_are_the_moments_of_two_rectified_gaussians(correlation):
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, 400_000))
    y = correlation * x + math.sqrt(1 - correlation**2) * z
    both = 2 * np.mean((x > 0) & (y > 0))
    product = 2 * np.mean(np.maximum(x, 0) * np.maximum(y, 0))
    assert theory.arc_cosine_kernel_0(correlation) == pytest.approx(both, abs=0.005)
    assert theory.arc_cosine_kernel_1(correlation) == pytest.approx(product, abs=0.01)


@pytest.mark.parametrize(("gain", "factor"), [(HE_GAIN, 1.0), (PYTORCH_DEFAULT_GAIN, 1 / 6)])
def test_relu_layers_multiply_the_squared_gradient_by_half_the_gain(gain, factor):
    assert theory.relu_growth(gain) == pytest.approx(factor)
    generator = np.random.default_rng(0)
    width, ratios = 400, []
    for _ in range(20):
        weight = generator.standard_normal((width, width)) * np.sqrt(gain / width)
        open_units = generator.random(width) < 0.5
        gradient = generator.standard_normal(width)
        back = weight.T @ (gradient * open_units)
        ratios.append(back @ back / (gradient @ gradient))
    assert np.mean(ratios) == pytest.approx(factor, rel=0.05)


def test_he_log_deviation_is_the_spread_of_products_of_rectified_gaussians():
    rng = np.random.default_rng(0)
    units = np.maximum(rng.standard_normal((4000, 6, 100)), 0)
    logs = np.log(2 * np.mean(units**2, axis=2)).sum(axis=1)
    assert theory.he_log_deviation(6, 100) == pytest.approx(np.std(logs), rel=0.06)


@pytest.mark.parametrize(("batch", "growth"), [(8, 1.788), (16, 1.590), (32, 1.522), (128, 1.480)])
def test_batchnorm_growth_is_as_worked_out(batch, growth):
    assert theory.batchnorm_growth(batch) == pytest.approx(growth, abs=5e-4)


def test_batchnorm_growth_tends_to_its_limit():
    assert pytest.approx(1.46694, abs=5e-6) == theory.BATCHNORM_GROWTH_LIMIT
    assert theory.batchnorm_growth(10**6) == pytest.approx(theory.BATCHNORM_GROWTH_LIMIT, abs=1e-5)


@pytest.mark.parametrize(
    ("depth", "correlation"), [(1, 0.500), (2, 0.302), (5, 0.105), (10, 0.034), (20, 0.008)]
)
def test_plain_correlation_decays_as_worked_out(depth, correlation):
    assert theory.plain_correlation(depth) == pytest.approx(correlation, abs=5e-4)


def test_residual_correlations_are_those_worked_out():
    assert theory.residual_correlation(10) == pytest.approx(0.140, abs=5e-4)
    variance, correlation = theory.batchnorm_residual_moments(20)
    assert variance == pytest.approx(42.9, abs=0.05)
    assert correlation == pytest.approx(0.177, abs=5e-4)


def test_batch_normalization_halves_the_correlation_at_every_plain_layer():
    assert theory.batchnorm_plain_correlation(5) == 1 / 32


def test_no_layer_changes_nothing():
    assert theory.plain_correlation(0) == theory.residual_correlation(0) == 1
    assert theory.batchnorm_plain_correlation(0) == 1
    assert theory.batchnorm_residual_moments(0) == (1, 1)


def test_a_branch_scaled_to_nothing_changes_nothing():
    assert theory.batchnorm_residual_moments(20, branch_scale=0.0) == (1, 1)


def test_gradients_of_equal_inputs_are_equal():
    assert theory.plain_correlation(7, correlation=1.0) == pytest.approx(1.0)
    assert theory.residual_correlation(7, correlation=1.0) == pytest.approx(1.0)


def test_path_length_shares_are_the_terms_of_the_expanded_power():
    expanded = np.polynomial.polynomial.polypow([1.0, 0.26], 54)
    shares = theory.path_length_shares(54, 0.26)
    assert shares == pytest.approx(expanded / 1.26**54, rel=1e-10)
    assert shares[5:18].sum() == pytest.approx(0.97, abs=5e-3)


def test_branch_shares_follow_from_the_signals_that_add_up():
    for block in range(5):
        squared_mean, variance = theory.preactivation_signal(block)
        assert squared_mean + variance == pytest.approx(block + 2)
        assert theory.branch_share(block) == pytest.approx(1 / (squared_mean + variance))
        share = (1 - 1 / math.pi) / variance
        assert theory.centred_branch_share(block) == pytest.approx(share)


def test_signals_are_the_moments_of_weighted_rectified_gaussians():
    rng = np.random.default_rng(0)
    rectified = np.maximum(rng.standard_normal(400_000), 0)
    # He's weights turn the square of a mean and a variance into 2 and 2 of theirs.
    squared_mean, variance = 2 * rectified.mean() ** 2, 2 * rectified.var()
    assert theory.preactivation_signal(0) == pytest.approx((squared_mean, 1 + variance), rel=0.01)
    assert theory.transition_signal() == pytest.approx((2 * squared_mean, 2 * variance), rel=0.01)


def test_regression_noise_is_the_moments_of_sampled_gradients():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400_000, 3))
    weights = np.array([0.0, 1.5, 0.0])
    gradients = x * (x @ weights - 0.5 * rng.standard_normal(len(x)))[:, None]
    squared, noise = theory.regression_noise(3, distance=1.5, noise=0.5)
    assert np.sum(gradients.mean(axis=0) ** 2) == pytest.approx(squared, rel=0.02)
    assert np.trace(np.cov(gradients.T)) == pytest.approx(noise, rel=0.02)
