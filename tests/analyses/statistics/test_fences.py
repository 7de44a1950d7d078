import numpy as np
import pytest
from scipy import stats

from analyses.statistics.fences import far_out


def test_fences_are_those_of_the_logarithms():
    values = np.exp(np.random.default_rng(0).normal(size=400) ** 3)
    logs = np.log(values)
    low, high = np.quantile(logs, [0.25, 0.75])
    expected = (logs < low - 3 * stats.iqr(logs)) | (logs > high + 3 * stats.iqr(logs))
    assert 0 < expected.sum() < 100
    assert (far_out(values, least_factor=1) == expected).all()


def test_hardly_any_lognormal_value_is_far_out():
    # Beyond the outer fences lie 2.3 in a million of a normal distribution.
    values = np.exp(np.random.default_rng(0).normal(size=200_000))
    beyond = 2 * stats.norm.sf(stats.norm.ppf(0.75) * 7)
    assert far_out(values).sum() <= stats.poisson.ppf(0.9999, beyond * len(values))


@pytest.mark.parametrize(("factor", "expected"), [(1.9, False), (2.1, True), (1 / 2.1, True)])
def test_of_nearly_equal_values_one_is_far_only_from_a_factor_of_two(factor, expected):
    values = np.append(np.ones(20), factor)
    assert list(np.flatnonzero(far_out(values))) == ([20] if expected else [])


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_values_that_have_no_logarithm_are_not_judged(value):
    values = np.array([1.0] * 20 + [value, 1000.0])
    assert list(np.flatnonzero(far_out(values))) == [21]
    assert not far_out(np.full(3, value)).any()
