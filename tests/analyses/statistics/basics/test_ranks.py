"""Ranks, standard errors and adjusted p-values against those of scipy.stats."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.basics.ranks import (
    false_discovery_adjusted,
    rank_correlation,
    ranks,
    standard_error,
    standard_scores,
)

GENERATOR = np.random.default_rng(4)
TIED = GENERATOR.integers(0, 6, (3, 5, 20)).astype(float)


@pytest.mark.parametrize(
    "values",
    [TIED, GENERATOR.standard_normal((4, 9)), np.zeros((2, 3)), np.array([2.0]), np.empty((0, 4))],
    ids=["ties", "no ties", "all equal", "one value", "none"],
)
def test_ranks_are_scipys(values):
    assert np.array_equal(ranks(values), stats.rankdata(values, axis=-1))


def test_a_missing_value_makes_the_ranks_of_its_row_missing():
    values = np.array([[1.0, np.nan, 3.0], [3.0, 1.0, 2.0]])
    assert np.array_equal(ranks(values), stats.rankdata(values, axis=-1), equal_nan=True)
    assert np.isnan(ranks(values)[0]).all()


def test_scores_errors_and_correlations_are_scipys():
    assert standard_scores(TIED) == pytest.approx(stats.zscore(TIED, axis=-1), rel=1e-12)
    one, other = TIED[0, :2]
    assert standard_error(one) == pytest.approx(stats.sem(one), rel=1e-14)
    expected = stats.spearmanr(one, other).statistic
    assert rank_correlation(one, other) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p_values", [GENERATOR.random(30) ** 3, [0.2, 0.01, 0.01, 1.0], [0.7]])
def test_adjusted_p_values_are_scipys(p_values):
    expected = stats.false_discovery_control(p_values, method="bh")
    assert false_discovery_adjusted(p_values) == pytest.approx(expected, rel=1e-14)


def test_of_no_p_values_none_is_adjusted():
    assert len(false_discovery_adjusted([])) == 0
