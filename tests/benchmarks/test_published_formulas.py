"""The closed forms beside values that were worked out apart from them."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "published" / "formulas.py"
SPEC = importlib.util.spec_from_file_location("published_formulas", SOURCE)
formulas = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(formulas)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.3, 0.9])
def test_relu_kernels_are_the_moments_of_two_rectified_gaussians(correlation):
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, 400_000))
    y = correlation * x + math.sqrt(1 - correlation**2) * z
    both = 2 * np.mean((x > 0) & (y > 0))
    product = 2 * np.mean(np.maximum(x, 0) * np.maximum(y, 0))
    assert formulas.coactivity(correlation) == pytest.approx(both, abs=0.005)
    assert formulas.relu_correlation(correlation) == pytest.approx(product, abs=0.01)


@pytest.mark.parametrize(
    ("depth", "correlation"), [(1, 0.500), (2, 0.302), (5, 0.105), (10, 0.034), (20, 0.008)]
)
def test_plain_correlation_decays_as_worked_out(depth, correlation):
    assert formulas.plain_correlation(depth) == pytest.approx(correlation, abs=5e-4)


def test_residual_correlations_are_those_worked_out():
    assert formulas.residual_correlation(10) == pytest.approx(0.140, abs=5e-4)
    variance, correlation = formulas.residual_batchnorm(20, beta=1.0)
    assert variance == pytest.approx(42.9, abs=0.05)
    assert correlation == pytest.approx(0.177, abs=5e-4)


def test_correlation_is_one_at_no_depth_and_for_equal_inputs():
    assert formulas.plain_correlation(0) == formulas.plain_batchnorm_correlation(0) == 1.0
    assert formulas.plain_correlation(7, correlation=1.0) == pytest.approx(1.0)
    assert formulas.residual_correlation(7, correlation=1.0) == pytest.approx(1.0)


def test_path_length_shares_are_the_terms_of_the_expanded_power():
    expanded = np.polynomial.polynomial.polypow([1.0, 0.26], 54)
    shares = formulas.path_length_shares(54, 0.26)
    assert shares == pytest.approx(expanded / 1.26**54, rel=1e-10)
    assert shares[5:18].sum() == pytest.approx(0.97, abs=5e-3)


@pytest.mark.parametrize(("batch", "factor"), [(8, 1.788), (16, 1.590), (32, 1.522), (128, 1.480)])
def test_batchnorm_factor_is_as_worked_out(batch, factor):
    assert formulas.batchnorm_factor(batch) == pytest.approx(factor, abs=5e-4)


def test_batchnorm_factor_tends_to_its_limit():
    assert pytest.approx(1.46694, abs=5e-6) == formulas.BATCHNORM_LIMIT
    assert formulas.batchnorm_factor(10**6) == pytest.approx(formulas.BATCHNORM_LIMIT, abs=1e-5)


def test_branch_shares_follow_from_the_signals_that_add_up():
    for block in range(5):
        squared_mean, variance = formulas.preactivation_signal(block)
        assert squared_mean + variance == pytest.approx(block + 2)
        assert formulas.branch_share(block) == pytest.approx(1 / (squared_mean + variance))
        share = (1 - 1 / math.pi) / variance
        assert formulas.centred_branch_share(block) == pytest.approx(share)


def test_he_log_deviation_is_the_spread_of_products_of_rectified_gaussians():
    rng = np.random.default_rng(0)
    units = np.maximum(rng.standard_normal((4000, 6, 100)), 0)
    logs = np.log(2 * np.mean(units**2, axis=2)).sum(axis=1)
    assert formulas.he_log_deviation(6, 100) == pytest.approx(np.std(logs), rel=0.06)


def test_regression_noise_is_the_moments_of_sampled_gradients():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400_000, 3))
    weights = np.array([0.0, 1.5, 0.0])
    gradients = x * (x @ weights - 0.5 * rng.standard_normal(len(x)))[:, None]
    squared, noise = formulas.regression_noise(3, distance=1.5, noise=0.5)
    assert np.sum(gradients.mean(axis=0) ** 2) == pytest.approx(squared, rel=0.02)
    assert np.trace(np.cov(gradients.T)) == pytest.approx(noise, rel=0.02)
