"""Does the loss spike, and which layer left its history first? From made series and trainings."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.condition import NotAsked
from analyses.health.conditions import CONDITIONS, read_health
from analyses.health.conditions.losses.spiking import first_departure, spiking_answer
from analyses.result import Verdict

DRAW = np.random.default_rng(0)


class Recorded:
    """A run of which only the steps are known."""

    def __init__(self, **columns):
        count = len(next(iter(columns.values())))
        missing = {"loss": np.nan, "gradient_norm": np.nan, "skipped": False}
        self.steps = pd.DataFrame({"step": range(count), **missing} | columns)
        self.activations = pd.DataFrame({"step": [], "layer": []})
        self.gradients = self.activations
        self.parameters = pd.DataFrame({"step": [], "parameter": []})
        self.layers = pd.DataFrame({"layer": []})

    def table(self, name):
        return pd.DataFrame({"spike": [], "spreads": []})


def noise(count, spread):
    return np.exp(spread * DRAW.normal(size=count))


def test_a_planted_spike_is_found_with_its_step():
    losses = 2 * noise(120, 0.05)
    losses[[70, 71, 100]] = 9.0
    found = spiking_answer(Recorded(loss=losses), 7.0)
    assert found.verdict is Verdict.SUPPORTED
    assert found.since == 70
    assert "is 9 in step 70" in found.said
    assert found.said.endswith("2 spikes in all")


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.3, 1.5])
@pytest.mark.parametrize("trend", [0.0, -0.03, 0.01])
def test_noise_and_trends_are_no_spikes(spread, trend):
    losses = noise(300, spread) * np.exp(trend * np.arange(300))
    found = spiking_answer(Recorded(loss=losses), 7.0)
    assert found.verdict is Verdict.CONTRADICTED
    assert found.value < 7.0


def test_a_norm_that_spikes_alone_is_nothing_where_the_loss_is_known():
    norms = noise(100, 0.1)
    norms[60] = 500.0
    assert spiking_answer(Recorded(loss=noise(100, 0.1), gradient_norm=norms), 7.0).verdict is (
        Verdict.CONTRADICTED
    )
    assert spiking_answer(Recorded(gradient_norm=norms), 7.0).since == 60


def test_steps_that_a_scaler_skipped_do_not_count():
    norms, skipped = noise(100, 0.1), np.zeros(100, dtype=bool)
    norms[60], skipped[60] = 1e9, True
    found = spiking_answer(Recorded(gradient_norm=norms, skipped=skipped), 7.0)
    assert found.verdict is Verdict.CONTRADICTED


def test_a_short_run_is_not_asked():
    found = spiking_answer(Recorded(loss=noise(20, 0.1)), 7.0)
    assert isinstance(found, NotAsked)
    assert "21 are needed" in found.reason


def train(folder, planted):
    """Train 60 steps with a spike planted at step 40; return the run."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    groups = [{"params": [one]} for one in model.parameters()]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    weights = torch.randn(8, 4)
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for step in range(60):
            x = torch.randn(32, 8)
            y = (x @ weights).argmax(1)
            if planted == "batch" and step == 40:
                x, y = 30 * x, y.roll(1)
            rate = 500.0 if planted == "rate" and step == 40 else 0.05
            optimizer.param_groups[4]["lr"] = rate  # of the last layer's weight
            loss = F.cross_entropy(model(x), y)
            tracer.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


def test_a_bad_batch_is_seen_at_the_first_layer_in_the_step_of_the_spike(tmp_path):
    run = train(tmp_path / "run", "batch")
    one = first_departure(run, 40)
    assert (one.step, one.name, one.what, one.is_first_output) == (40, "0", "output", True)
    reading = next(one for one in read_health(run) if one.condition == "spiking")
    assert (reading.verdict, reading.since, reading.layer) == (Verdict.SUPPORTED, 40, "0")
    assert reading.cause.endswith("in the same step: what changed before it is the batch.")


def test_a_rate_that_jumps_is_seen_at_the_update_one_step_before(tmp_path):
    run = train(tmp_path / "run", "rate")
    reading = next(one for one in read_health(run) if one.condition == "spiking")
    assert (reading.verdict, reading.since) == (Verdict.SUPPORTED, 41)
    assert reading.layer == "4.weight"
    assert "the update of 4.weight" in reading.cause
    assert reading.cause.endswith("in step 40.")


def test_a_training_as_it_should_be_does_not_spike(tmp_path):
    reading = next(
        one for one in read_health(train(tmp_path / "run", "")) if one.condition == "spiking"
    )
    assert reading.verdict is Verdict.CONTRADICTED
    assert CONDITIONS["spiking"].only_if_present
