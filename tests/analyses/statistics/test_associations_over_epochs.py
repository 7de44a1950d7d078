"""The association test against scipy and brute force; what is unrelated seldom counts as linked."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from analyses.statistics.associations_over_epochs import (
    steady_learning_basis,
    strongest_association,
)


def ar1(phi, shape, generator):
    noise = generator.standard_normal((*shape[:-1], shape[-1] + 50))
    series = np.zeros_like(noise)
    for step in range(1, noise.shape[-1]):
        series[..., step] = phi * series[..., step - 1] + noise[..., step]
    return series[..., 50:]


def rest(series):
    """Residuals of a regression on 1 and 1/k, by numpy's least squares."""
    k = np.arange(1, len(series) + 1)
    design = np.stack([np.ones(len(series)), 1 / k], axis=1)
    return series - design @ np.linalg.lstsq(design, series, rcond=None)[0]


def rho(a, b):
    return spearmanr(a, b).statistic


def test_the_steady_course_is_orthonormal_and_holds_a_line_and_a_logarithms_changes():
    course = steady_learning_basis(9)
    assert course.T @ course == pytest.approx(np.eye(2))
    learning = 0.3 + 0.7 / np.arange(1, 10)
    assert course @ (course.T @ learning) == pytest.approx(learning)


def test_correlations_are_scipys_of_the_residuals_averaged_over_runs():
    generator = np.random.default_rng(2)
    responses, quantities = generator.random((2, 20)), generator.random((2, 3, 20))
    found = strongest_association(list(quantities), list(responses), 200)
    expected = [
        np.mean([rho(rest(quantities[run, which]), rest(responses[run])) for run in range(2)])
        for which in range(3)
    ]
    assert found.correlations == pytest.approx(expected)
    assert found.strongest == int(np.abs(expected).argmax())


def test_with_five_seeds_the_p_value_is_that_of_all_swaps_by_brute_force():
    generator = np.random.default_rng(3)
    responses, quantities = generator.random((5, 8)), generator.random((5, 2, 8))
    responses += quantities[:, 1]
    largest = [
        max(
            abs(np.mean([rho(rest(quantities[a, q]), rest(responses[b])) for a, b in enumerate(p)]))
            for q in range(2)
        )
        for p in permutations(range(5))
    ]
    found = strongest_association(list(quantities), list(responses))
    assert found.p_value == pytest.approx(np.mean(np.array(largest) >= largest[0] - 1e-9))
    assert found.smallest_p == pytest.approx(1 / 120)
    assert found.critical_rho == pytest.approx(np.quantile(largest, 0.95, method="higher"))


def test_with_two_seeds_the_p_value_is_the_larger_of_two_over_all_rotations():
    generator = np.random.default_rng(4)
    responses, quantities = generator.random((2, 7)), generator.random((2, 1, 7))
    responses += quantities[:, 0]

    def p_of(prepare):
        means = [
            abs(
                np.mean(
                    [
                        rho(prepare(quantities[run, 0]), np.roll(prepare(responses[run]), -turn))
                        for run, turn in enumerate(turns)
                    ]
                )
            )
            for turns in product(range(7), repeat=2)
        ]
        return np.mean(np.array(means) >= means[0] - 1e-9)

    found = strongest_association(list(quantities), list(responses))
    assert found.p_value == pytest.approx(max(p_of(rest), p_of(lambda series: series)))
    assert found.smallest_p == pytest.approx(1 / 49)


def test_a_planted_association_is_found_among_many_quantities():
    generator = np.random.default_rng(4)
    response = generator.standard_normal(60)
    quantities = np.vstack([generator.standard_normal((9, 60)), response + 0.1])
    found = strongest_association([quantities], [response], 500)
    assert (found.strongest, found.p_value < 0.03) == (9, True)
    assert found.interval(9)[0] > 0.5


def test_independent_ar1_series_seldom_count_as_associated():
    """A plain Pearson test of one pair fires half of the time here, the best of ten still more."""
    generator = np.random.default_rng(11)
    fired = naive = 0
    for repetition in range(60):
        response, quantities = (ar1(0.9, shape, generator) for shape in ((100,), (10, 100)))
        fired += strongest_association([quantities], [response], 200, repetition).p_value < 0.05
        naive += pearsonr(quantities[0], response).pvalue < 0.05
    assert fired <= 6
    assert naive >= 20


def test_a_course_of_training_that_all_seeds_share_is_no_association():
    generator = np.random.default_rng(12)
    course = 5 * np.exp(-np.arange(12) / 4)
    fired = 0
    for repetition in range(60):
        responses = course + ar1(0.9, (5, 12), generator)
        quantities = course + ar1(0.9, (5, 8, 12), generator)
        p = strongest_association(list(quantities), list(responses), 200, repetition).p_value
        fired += p < 0.05
    assert fired <= 8  # Binomial(60, 0.05) is above 8 less than once in a hundred times


def test_a_series_that_is_all_course_correlates_with_nothing():
    course = (3 + 2 / np.arange(1, 11))[None]
    found = strongest_association([course], [np.random.default_rng(0).random(10)])
    assert found.correlations == (0.0,)


def test_one_short_run_cannot_reach_a_small_p_value():
    series = np.random.default_rng(0).random(9)
    assert strongest_association([series[None]], [series]).smallest_p == pytest.approx(1 / 9)
