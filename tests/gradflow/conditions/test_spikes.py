"""When a loss leaves its own history."""

import numpy as np
import pytest

from gradflow.conditions.spikes import LEAST, SPREADS, excess, excesses

DRAW = np.random.default_rng(0)


def test_the_excess_is_in_spreads_of_the_logarithm():
    # The logarithms -1, 0, 1 in turn: median 0, median absolute deviation 1, sigma 1.4826.
    history = np.exp(np.tile([-1.0, 0.0, 1.0], 10))
    bound = SPREADS * 1.4826
    assert excess(history, np.exp(bound), 1.5) == pytest.approx(1.0)
    assert excess(history, np.exp(2 * bound), 1.5) == pytest.approx(2.0)
    assert excess(history, np.exp(-bound), 1.5) == pytest.approx(-1.0)


def test_without_noise_the_factor_decides():
    assert excess(np.full(30, 2.0), 2.9, 1.5) < 1 < excess(np.full(30, 2.0), 3.1, 1.5)


def test_losses_below_zero_are_compared_as_they_are():
    history = np.tile([-11.0, -10.0, -9.0], 10)
    assert excess(history, -10.0 + SPREADS * 1.4826, 1.5) == pytest.approx(1.0)


def test_a_short_history_tells_nothing():
    assert np.isnan(excess(np.ones(LEAST - 1), 100.0, 1.5))


def test_a_value_that_is_not_finite_is_infinitely_far():
    assert excess(np.ones(LEAST), np.nan, 1.5) == np.inf


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.5])
def test_noise_does_not_spike_and_one_planted_value_does(spread):
    noise = np.exp(spread * DRAW.normal(size=400))
    assert not (excesses(noise, 1.5) >= 1).any()
    noise[250] = np.exp(12 * spread) + 1.0
    assert np.flatnonzero(excesses(noise, 1.5) >= 1).tolist() == [250]


def test_a_loss_that_falls_and_a_warm_restart_do_not_spike():
    falls = np.exp(-np.arange(300) / 60) * np.exp(0.05 * DRAW.normal(size=300))
    restart = np.concatenate([falls, falls[60:]])  # back up by a factor of 55, over no time at all
    assert not (excesses(falls, 1.5) >= 1).any()
    assert (excesses(restart, 1.5) >= 1).any()
