"""Power of the paired t-test, against scipy's noncentral t, simulation and published tables."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.power import paired_power, sd_interval, seeds_for_power, seeds_needed


@pytest.mark.parametrize(("seeds", "effect"), [(2, 3.0), (5, 1.0), (10, 1.0), (34, 0.5)])
def test_power_is_the_tail_of_the_noncentral_t(seeds, effect):
    # Integrate over the chi-square of the variance: no noncentral t involved.
    freedom = seeds - 1
    critical = stats.t.ppf(0.975, freedom)
    grid = stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, freedom)
    bound = critical * np.sqrt(grid / freedom)
    shift = effect * seeds**0.5
    wanted = (stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)).mean()
    assert paired_power(seeds, effect, 1.0) == pytest.approx(wanted, abs=1e-4)


def test_power_is_what_simulated_experiments_find():
    draws = np.random.default_rng(0).normal(2.0, 3.0, size=(20_000, 12))
    found = (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
    assert paired_power(12, 2.0, 3.0) == pytest.approx(found, abs=0.012)


def test_no_difference_is_found_as_often_as_the_level_says():
    assert paired_power(7, 0.0, 1.0) == pytest.approx(0.05)
    assert paired_power(7, 0.0, 1.0, alpha=0.01) == pytest.approx(0.01)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_are_those_of_published_tables(effect, seeds):
    # G*Power 3.1: paired t-test, two-sided, 5 %, power 80 %.
    assert seeds_for_power(effect, 1.0) == seeds


def test_the_number_is_the_smallest_that_reaches_the_power():
    for effect in (0.05, 0.37, 2.0, 9.0):
        seeds = seeds_for_power(effect, 1.0)
        assert paired_power(seeds, effect, 1.0) >= 0.8
        assert seeds == 2 or paired_power(seeds - 1, effect, 1.0) < 0.8


def test_no_difference_or_a_tiny_one_has_no_number():
    assert seeds_for_power(0.0, 1.0) is None
    assert seeds_for_power(1e-5, 1.0) is None


def test_without_spread_two_seeds_are_enough():
    assert seeds_for_power(0.01, 0.0) == 2


def test_huge_effects_are_found_surely():
    assert paired_power(2, 1e6, 1.0) == 1.0
    assert paired_power(3, 300.0, 1.0) == pytest.approx(1.0)


def test_the_interval_of_the_standard_deviation_covers_it():
    draws = np.random.default_rng(1).normal(0, 2.0, size=(4000, 5)).std(axis=1, ddof=1)
    covered = [low <= 2.0 <= high for low, high in (sd_interval(float(sd), 5) for sd in draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_the_interval_of_the_number_comes_from_that_of_the_standard_deviation():
    needed = seeds_needed(2.0, 3.0, seeds=5)
    low, high = sd_interval(3.0, 5)
    assert (needed.low, needed.value, needed.high) == (
        seeds_for_power(2.0, low),
        seeds_for_power(2.0, 3.0),
        seeds_for_power(2.0, high),
    )
    assert needed.low < needed.value < needed.high


@pytest.mark.parametrize("ask", [lambda: paired_power(1, 1.0, 1.0), lambda: sd_interval(1.0, 1)])
def test_one_seed_is_refused(ask):
    with pytest.raises(ValueError, match="at least 2"):
        ask()
