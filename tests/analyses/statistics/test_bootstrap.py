"""Resampling: widths, coverage, and blocks of consecutive steps."""

import numpy as np
import pytest
from scipy.stats import norm

from analyses.statistics.bootstrap import (
    block_bootstrap,
    block_length,
    lag_one_autocorrelation,
    means_over_images,
    moving_block_indices,
)


def ar1(phi, length, generator):
    noise = generator.standard_normal(length + 50)
    series = np.zeros(length + 50)
    for step in range(1, length + 50):
        series[step] = phi * series[step - 1] + noise[step]
    return series[50:]


def test_bootstrap_over_images_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=400)
    low, high = np.quantile(means_over_images(values), [0.025, 0.975])
    half = norm.ppf(0.975) * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)


def test_lag_one_autocorrelation_by_hand():
    assert lag_one_autocorrelation([1, 2, 3]) == pytest.approx(0.0)
    assert lag_one_autocorrelation([1, -1, 1, -1]) == pytest.approx(-3 / 4)
    assert lag_one_autocorrelation([2, 2, 2]) == 0


def test_block_length_is_carlsteins_for_ar1():
    series = ar1(0.8, 1000, np.random.default_rng(0))
    phi = lag_one_autocorrelation(series)
    assert block_length(series) == round((2 * phi / (1 - phi**2)) ** (2 / 3) * 10)
    assert block_length(np.ones(50)) == 1
    assert block_length(np.arange(9.0)) <= 3


def test_moving_blocks_are_runs_of_consecutive_steps():
    indices = moving_block_indices(10, 4, resamples=30, seed=1)
    assert indices.shape == (30, 10)
    steps = np.diff(indices, axis=1) % 10
    assert (np.delete(steps, [3, 7], axis=1) == 1).all()


def test_first_and_last_steps_are_drawn_as_often_as_any_other():
    counts = np.bincount(moving_block_indices(10, 4, resamples=5000, seed=1).ravel(), minlength=10)
    assert counts / 5000 == pytest.approx(np.ones(10), abs=0.05)


def test_block_bootstrap_covers_the_mean_of_an_ar1_series_where_single_steps_do_not():
    generator = np.random.default_rng(5)
    covered = narrow = 0
    for repetition in range(60):
        series = ar1(0.7, 200, generator)
        draws = block_bootstrap(series, lambda drawn: drawn.mean(axis=-1), 400, repetition)
        low, high = np.quantile(draws, [0.025, 0.975])
        covered += low < 0 < high
        narrow += abs(series.mean()) < 1.96 * series.std() / np.sqrt(200)
    assert covered >= 50
    assert narrow < covered - 10
