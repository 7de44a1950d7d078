"""Rows around a spike are written, others only if they are wanted."""

import numpy as np
import pytest

from gradflow.hooks.recording.spikes import SpikeRing


def transfer(steps, losses, norms=None):
    """The rows of a transfer: a loss a step, two layers, and the notes on batches."""
    count = len(steps)
    layers = np.ma.array(np.array(["a", "b"] * count, dtype=object), mask=False)
    return {
        "steps": {
            "step": np.ma.array(steps),
            "loss": np.ma.array(losses),
            "gradient_norm": np.ma.array(norms if norms is not None else np.ones(count)),
            "skipped": np.ma.array([False] * count),
        },
        "gradients": {"step": np.ma.array(np.repeat(steps, 2)), "layer": layers},
        "spikes": {
            "step": np.ma.array(steps),
            "spike": np.ma.masked_all(count, int),
            "quantity": np.ma.array([""] * count, dtype=object),
            "spreads": np.ma.masked_all(count),
        },
    }


def written(ring, losses, every=1000, at_once=16, norms=None):
    """Which steps of a series are written, and the rows of the table spikes."""
    parts = []
    for start in range(0, len(losses), at_once):
        steps = list(range(start, min(start + at_once, len(losses))))
        chosen = None if norms is None else norms[start : start + at_once]
        wanted = [step % every == 0 for step in steps]
        parts.append(ring.take(transfer(steps, losses[steps], chosen), wanted))
    parts.append(ring.rest())
    steps = [step for part in parts if "steps" in part for step in part["steps"]["step"].tolist()]
    rows = [
        row
        for part in parts
        if "spikes" in part
        for row in zip(
            *(part["spikes"][name].tolist() for name in ("step", "spike", "quantity")), strict=True
        )
    ]
    layers = [
        step for part in parts if "gradients" in part for step in part["gradients"]["step"].tolist()
    ]
    assert layers == [step for step in steps for _ in "ab"]
    return steps, rows


@pytest.fixture
def losses():
    return 2 * np.exp(0.05 * np.random.default_rng(0).normal(size=96))


# The spike lies within a transfer, at its first and at its last step.
@pytest.mark.parametrize("spike", [40, 48, 63])
@pytest.mark.parametrize("at_once", [1, 5, 16])
def test_the_steps_before_and_after_are_written_whatever_the_transfers(losses, spike, at_once):
    losses[spike] = 20.0
    steps, rows = written(SpikeRing(6), losses, at_once=at_once)
    around = list(range(spike - 6, spike + 7))
    assert steps == [0, *around]
    assert rows == [(step, spike, "loss") for step in around]


def test_steps_of_the_schedule_are_written_in_order_with_them(losses):
    losses[40] = 20.0
    steps, rows = written(SpikeRing(2), losses, every=10)
    assert steps == [0, 10, 20, 30, 38, 39, 40, 41, 42, 50, 60, 70, 80, 90]
    assert [step for step, _, _ in rows] == [38, 39, 40, 41, 42]


def test_a_norm_that_spikes_alone_is_written_too(losses):
    norms = np.ones(96)
    norms[50] = 100.0
    steps, rows = written(SpikeRing(1), losses, norms=norms)
    assert steps == [0, 49, 50, 51]
    assert {quantity for _, _, quantity in rows} == {"gradient_norm"}


def test_a_loss_that_is_nan_is_a_spike(losses):
    losses[50:] = np.nan
    steps, _ = written(SpikeRing(3), losses)
    assert steps[:4] == [0, 47, 48, 49]


def test_without_a_spike_nothing_is_held_for_long(losses):
    ring = SpikeRing(4)
    ring.take(transfer(list(range(16)), losses[:16]), [False] * 16)
    assert ring.start == 12
    assert ring.rest() == {}
    assert ring.start is None


def test_a_ring_that_goes_on_knows_the_history(losses):
    first, second = SpikeRing(2), SpikeRing(2)
    first.take(transfer(list(range(40)), losses[:40]), [False] * 40)
    first.rest()
    second.load_state_dict(first.state_dict())
    losses[42] = 20.0
    found = second.take(transfer(list(range(40, 50)), losses[40:50]), [False] * 10)
    assert found["steps"]["step"].tolist() == [40, 41, 42, 43, 44]
