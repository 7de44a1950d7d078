"""When a loss leaves its own history."""

import numpy as np
import pytest

from gradflow.conditions import spikes
from gradflow.conditions.spikes import LEAST, SPREADS, History, spike_score, spreads_above


def scores(losses):
    """The score of each step of a training without gradient norms."""
    history = History()
    return np.array([history.look(float(loss), None).score for loss in losses])


DRAW = np.random.default_rng(0)


def test_it_is_in_spreads_of_the_logarithm():
    # The logarithms -1, 0, 1 in turn: median 0, median absolute deviation 1, sigma 1.4826.
    history = np.exp(np.tile([-1.0, 0.0, 1.0], 10))
    bound = SPREADS * 1.4826
    assert spreads_above(history, np.exp(bound), 1.5) == pytest.approx(SPREADS)
    assert spreads_above(history, np.exp(2 * bound), 1.5) == pytest.approx(2 * SPREADS)
    assert spreads_above(history, np.exp(-bound), 1.5) == pytest.approx(-SPREADS)


def test_without_noise_the_factor_decides():
    assert (
        spreads_above(np.full(30, 2.0), 2.9, 1.5)
        < SPREADS
        < spreads_above(np.full(30, 2.0), 3.1, 1.5)
    )


def test_losses_below_zero_are_compared_as_they_are():
    history = np.tile([-11.0, -10.0, -9.0], 10)
    assert spreads_above(history, -10.0 + SPREADS * 1.4826, 1.5) == pytest.approx(SPREADS)


def test_a_short_history_tells_nothing():
    assert np.isnan(spreads_above(np.ones(LEAST - 1), 100.0, 1.5))


def test_a_value_that_is_not_finite_is_infinitely_far():
    assert spreads_above(np.ones(LEAST), np.nan, 1.5) == np.inf


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.5])
def test_noise_does_not_spike_and_one_planted_value_does(spread):
    noise = np.exp(spread * DRAW.normal(size=400))
    assert not (scores(noise) >= SPREADS).any()
    noise[250] = np.exp(12 * spread) + 1.0
    noise *= 2.0
    assert np.flatnonzero(scores(noise) >= SPREADS).tolist() == [250]


def test_a_loss_that_falls_does_not_spike():
    falls = np.exp(-np.arange(300) / 60) * np.exp(0.05 * DRAW.normal(size=300))
    assert not (scores(falls) >= SPREADS).any()


def test_near_convergence_only_what_undoes_all_progress_is_a_spike():
    losses = np.concatenate([np.full(30, 2.0), 1e-3 * np.exp(DRAW.normal(size=100))])
    losses[100] = 0.5  # one wrong sample in a batch
    assert not (scores(losses) >= SPREADS).any()
    losses[100] = 2.5  # no more than 1.5 times the start
    assert not (scores(losses) >= SPREADS).any()
    losses[100] = 4.0
    assert np.flatnonzero(scores(losses) >= SPREADS).tolist() == [100]


def test_what_left_its_history_is_named():
    history = History()
    for _ in range(LEAST):
        assert history.look(2.0, 1.0).left == ""
    assert history.look(2.0, 5.0).left == "gradient_norm"
    assert history.look(4.0, 1.0).left == "loss"
    assert history.look(float("nan"), 1.0).left == "loss"


def test_a_history_goes_on():
    first, second = History(), History()
    for step in range(40):
        first.look(2.0 + 0.01 * (step % 3), None)
    second.load_state_dict(first.state_dict())
    assert second.look(4.0, None) == first.look(4.0, None)


def test_a_norm_alone_is_no_spike_and_with_the_loss_half_as_far_it_is():
    assert spike_score(0.5, 30.0) < SPREADS
    assert spike_score(0.5 * SPREADS, 30.0) == SPREADS
    assert spike_score(SPREADS, 0.0) == SPREADS
    assert spike_score(float("nan"), SPREADS) == spike_score(SPREADS, float("nan")) == SPREADS


def test_the_median_of_a_few_numbers_is_numpys_to_the_bit():
    generator = np.random.default_rng(0)
    for size in range(1, 40):
        values = generator.lognormal(size=size)
        expected = float(np.median(values))
        assert spikes._median(values) == spikes._median(values.tolist()) == expected


def test_a_loss_that_is_next_to_nothing_before_its_history_is_full():
    falls = [1.34, 1.26, 0.9, 0.7, 0.4, 0.1, 0.3, 0.05, 0.3, 0.3, 0.001, 0.002, 0.05]
    losses = np.concatenate([falls, 1e-6 * np.exp(DRAW.normal(size=100))])
    losses[[18, 40, 52]] = 0.75, 0.17, 1.8
    assert not (scores(losses) >= SPREADS).any()
    losses[60] = 2.5
    assert np.flatnonzero(scores(losses) >= SPREADS).tolist() == [60]
