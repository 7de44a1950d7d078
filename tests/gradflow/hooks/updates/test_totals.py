"""Totals of norms, beside numpy on the whole."""

import numpy as np
import pytest

from gradflow.hooks.updates.totals import quotient, ratio, root_of_squares, step_totals


def test_roots_of_sums_of_squares_by_place_leave_out_what_is_missing():
    generator = np.random.default_rng(0)
    values = np.ma.array(generator.random(30), mask=generator.random(30) < 0.3)
    places = generator.integers(0, 4, 30)
    found = root_of_squares(values, places, 5)
    for place in range(4):
        expected = np.linalg.norm(values[places == place].compressed())
        assert found[place] == pytest.approx(expected, rel=1e-12)
    assert found.mask.tolist() == [False] * 4 + [True]


def test_infinite_and_undefined_norms_stay_what_they_are():
    found = root_of_squares(np.ma.array([np.inf, 1.0, np.nan]), np.array([0, 0, 1]), 2)
    assert found[0] == np.inf
    assert np.isnan(found[1])
    assert not found.mask.any()


def test_ratios_are_missing_only_where_nothing_is_known():
    above = np.ma.array([1.0, 0.0, 2.0, 3.0, 0.0], mask=[False, False, False, True, False])
    below = np.ma.array([2.0, 0.0, 0.0, 1.0, 5.0])
    found = ratio(above, below)
    assert found.mask.tolist() == [False, True, False, True, False]
    assert found[[0, 2, 4]].tolist() == [0.5, np.inf, 0.0]
    assert quotient(above, below).mask.tolist() == [False, True, True, True, False]


def test_the_factor_of_a_step_is_of_the_parameters_that_have_both():
    parameters = {
        "step": np.ma.array([3, 3, 3, 5]),
        "backward_gradient_norm": np.ma.array([4.0, 3.0, 9.0, 1.0], mask=[0, 0, 0, 1]),
        "gradient_norm": np.ma.array([2.0, 1.5, 9.0, 1.0], mask=[0, 0, 1, 0]),
    }
    found = step_totals([3, 5, 7], parameters)
    assert found["backward_gradient_norm"].tolist() == [pytest.approx(106**0.5), None, None]
    assert found["gradient_norm"].tolist() == [2.5, 1.0, None]
    assert found["clipping_factor"].tolist() == [0.5, None, None]


def test_steps_without_parameters_have_no_totals():
    assert all(column.mask.all() for column in step_totals([0, 1], None).values())
