"""Quantiles and tails against those of scipy.stats, and of the definitions in exact arithmetic."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.basics.distributions import (
    binomial_shares,
    chi_square_quantile,
    fair_coin_quantile,
    noncentral_student_below,
    normal_quantile,
    sign_test,
    student_above,
    student_quantile,
)
from gradflow.conditions.chance import binomial_at_least

P = (0.0005, 0.025, 0.3, 0.5, 0.95, 0.9995)


@pytest.mark.parametrize("degrees", [1, 2, 7, 400])
def test_student_and_chi_square_are_scipys(degrees):
    for p in P:
        assert student_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-12)
        expected = stats.chi2.ppf(p, degrees)
        assert chi_square_quantile(p, degrees) == pytest.approx(expected, rel=1e-12)
    values = np.array([-30.0, -1.2, 0.0, 2.5, 30.0])
    expected = stats.t.sf(values, degrees)
    assert student_above(values, degrees) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("degrees", [1, 4, 60])
@pytest.mark.parametrize("shift", [0.0, 0.7, 6.0])
def test_the_noncentral_t_is_scipys(degrees, shift):
    for value in (-2.0, 0.5, 9.0):
        expected = stats.nct.cdf(value, degrees, shift)
        assert noncentral_student_below(value, degrees, shift) == pytest.approx(expected, abs=1e-9)


def test_the_normal_quantile_is_scipys():
    assert [normal_quantile(p) for p in P] == pytest.approx(stats.norm.ppf(P), rel=1e-12)


@pytest.mark.parametrize(("trials", "p"), [(0, 0.5), (1, 0.2), (16, 0.5), (250, 0.37), (7, 1.0)])
def test_shares_of_a_binomial_are_those_of_exact_fractions(trials, p):
    one = Fraction(p)
    exact = [float(comb(trials, k) * one**k * (1 - one) ** (trials - k)) for k in range(trials + 1)]
    assert binomial_shares(trials, p) == pytest.approx(exact, rel=1e-12, abs=0)


def test_tails_of_a_binomial_are_scipys_outside_of_its_values_too():
    counts = np.array([-1.0, 0.0, 1.0, 5.0, 8.0, 9.0, 40.0])
    expected = stats.binom.sf(counts - 1, 8, 0.5)
    assert binomial_at_least(counts, 8, 0.5) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(binomial_at_least(np.nan, 8, 0.5))


def test_quantiles_of_a_fair_coin_are_scipys():
    found = [fair_coin_quantile(p, trials) for trials in range(1, 200) for p in (0.005, 0.025)]
    expected = [stats.binom.ppf(p, trials, 0.5) for trials in range(1, 200) for p in (0.005, 0.025)]
    assert found == expected


def test_the_sign_test_is_scipys_exact_test():
    pairs = [(gained, lost) for gained in range(12) for lost in range(12)] + [(300, 240), (1, 400)]
    expected = [stats.binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in pairs]
    assert [sign_test(*pair) for pair in pairs] == pytest.approx(expected, rel=1e-12)
