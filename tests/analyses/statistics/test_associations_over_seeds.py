"""Rank correlations over seeds against scipy, and their false alarms."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.associations_over_seeds import seed_associations


def test_correlations_are_spearmans_averaged_over_networks():
    generator = np.random.default_rng(0)
    values = [generator.random((3, 6)), generator.random((3, 8))]
    scores = [generator.random(6), generator.random(8)]
    found = seed_associations(values, scores)
    for place in range(3):
        rhos = [
            stats.spearmanr(one[place], score).statistic
            for one, score in zip(values, scores, strict=True)
        ]
        assert found.correlations[place] == pytest.approx((6 * rhos[0] + 8 * rhos[1]) / 14)
    assert found.runs == (14, 14, 14)


def test_the_p_value_of_one_quantity_is_that_of_all_permutations():
    values, score = np.array([[1.0, 2, 3, 5, 4]]), np.arange(5.0)
    found = seed_associations([values], [score], permutations=20_000)
    rhos = [stats.spearmanr(values[0], order).statistic for order in permutations(range(5))]
    exact = np.mean(np.abs(rhos) >= abs(found.correlations[0]) - 1e-12)
    assert found.p_values[0] == pytest.approx(exact, abs=0.01)


def test_looking_at_many_raises_the_p_value():
    generator = np.random.default_rng(1)
    score = np.arange(6.0)
    one = score[None] + 0.1
    alone = seed_associations([one], [score]).p_values[0]
    among = seed_associations([np.vstack([one, generator.random((30, 6))])], [score]).p_values[0]
    assert among > alone


def test_unrelated_quantities_rarely_pass():
    generator = np.random.default_rng(2)
    smallest = [
        min(
            seed_associations(
                [generator.random((5, 6)) for _ in range(2)],
                [generator.random(6) for _ in range(2)],
                permutations=200,
                seed=draw,
            ).p_values
        )
        for draw in range(300)
    ]
    # 15 of 300 are expected below 0.05; 26 are exceeded three times in a thousand.
    assert np.sum(np.array(smallest) < 0.05) <= 26


def test_four_seeds_or_a_missing_value_give_no_correlation():
    generator = np.random.default_rng(3)
    few = seed_associations([generator.random((1, 4))], [generator.random(4)])
    assert np.isnan(few.correlations[0])
    values = generator.random((2, 6))
    values[0, 2] = np.nan
    found = seed_associations([values], [generator.random(6)])
    assert np.isnan(found.p_values[0])
    assert np.isfinite(found.p_values[1])


def test_a_constant_quantity_counts_only_where_it_varies():
    generator = np.random.default_rng(4)
    flat, varying = np.full((1, 6), 16.0), generator.random((1, 6))
    scores = [generator.random(6), generator.random(6)]
    found = seed_associations([flat, varying], scores)
    assert found.correlations[0] == pytest.approx(stats.spearmanr(varying[0], scores[1]).statistic)
    assert found.runs == (6,)
