"""Means of dependent steps: exact where steps are independent, calibrated where they are not."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from analyses.statistics.batch_means import MAX_BATCHES, MIN_BATCHES, batch_mean


def autoregressive(generator, steps, phi):
    # Started at its stationary distribution: the first steps count like any other.
    noise = generator.standard_normal(steps) * (1 - phi**2) ** 0.5
    return lfilter([1.0], [1.0, -phi], noise, zi=[phi * generator.standard_normal()])[0]


def test_the_interval_is_students_over_the_means_of_batches():
    series = np.random.default_rng(0).normal(1.0, 1.0, size=400)
    mean = batch_mean(series)
    assert mean.batches == MAX_BATCHES
    batches = series.reshape(MAX_BATCHES, -1).mean(axis=1)
    assert mean.interval() == pytest.approx(
        stats.t.interval(0.95, MAX_BATCHES - 1, batches.mean(), stats.sem(batches))
    )
    assert mean.p_value() == pytest.approx(stats.ttest_1samp(batches, 0.0).pvalue)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_dependent_steps_without_a_mean_fire_about_as_often_as_the_level(phi):
    generator = np.random.default_rng(1)
    values = [batch_mean(autoregressive(generator, 200, phi)).p_value() for _ in range(500)]
    # 500 series: two standard errors of 0.05 are 0.02, a further 0.01 is documented.
    assert np.mean(np.array(values) < 0.05) <= 0.08


def test_steps_taken_as_independent_would_fire_far_too_often():
    generator = np.random.default_rng(2)
    naive = [stats.ttest_1samp(autoregressive(generator, 200, 0.8), 0.0).pvalue for _ in range(200)]
    assert np.mean(np.array(naive) < 0.05) > 0.4


def test_a_mean_at_the_margin_fires_half_of_the_time_at_most():
    generator = np.random.default_rng(3)
    series = [generator.normal(0.2, 1.0, size=100) for _ in range(400)]
    at_margin = [batch_mean(one).p_value(0.2) for one in series]
    beyond = [batch_mean(one + 1.0).p_value(0.2) for one in series]
    # At the margin one tail alone lies beyond it: half of a two-sided level, and twice that.
    assert np.mean(np.array(at_margin) < 0.05) <= 0.08
    assert np.mean(np.array(beyond) < 0.05) > 0.99


def test_few_steps_have_a_mean_without_interval():
    mean = batch_mean([1.0, 2.0, 3.0, np.nan])
    assert (mean.value, mean.steps, mean.interval(), mean.p_value()) == (2.0, 3, (None, None), None)
    assert batch_mean([np.nan]).value is None


def test_long_dependence_leaves_few_batches():
    assert batch_mean(np.linspace(0, 1, 100)).batches == MIN_BATCHES


def test_a_constant_lies_within_the_margin_or_beyond_it():
    assert batch_mean(np.full(50, 0.25)).p_value(0.3) == 1.0
    assert batch_mean(np.full(50, 0.25)).p_value(0.2) == 0.0
