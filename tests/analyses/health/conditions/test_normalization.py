"""Whether batch norms have the statistics that evaluation and training need."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.condition import NotAsked
from analyses.health.conditions.normalization import frozen_answer, stale_answer
from analyses.result import Verdict


def traced(folder, model, batches, *, lr=0.05, before_step=lambda step: None, **options):
    """Train `model` to classify `batches`, [steps, N, F], by the sign of their first feature."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    with gradflow.Tracer(model, folder / "run", optimizer=optimizer, **options) as tracer:
        for step, x in enumerate(batches):
            before_step(step)
            F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder / "run")


def net(**options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16, **options), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(16, 2),
    )  # fmt: skip


def data(steps: int, samples: int = 32) -> torch.Tensor:
    return torch.randn(steps, samples, 6, generator=torch.Generator().manual_seed(0)) + 1


def drifting(steps: int, speed: float) -> torch.Tensor:
    """Batches whose mean moves by `speed` standard deviations a step; theirs is exact."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, 64, 4, generator=generator, dtype=torch.float64)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    return (x + speed * torch.arange(steps)[:, None, None]).float()


def test_a_usual_training_is_not_stale(tmp_path):
    found = stale_answer(traced(tmp_path, net(), data(80)), 0.5)
    assert found.verdict is Verdict.CONTRADICTED
    assert found.value < 0.3


def test_the_lag_behind_a_steady_drift_is_as_theory_has_it(tmp_path):
    """Running: d (1 - a) / a behind the last batch; the mean of the last 8 is 3.5 d behind it."""
    speed, momentum = 0.2, 0.1
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 2))
    found = stale_answer(traced(tmp_path, model, drifting(120, speed)), 0.5)
    assert found.verdict is Verdict.SUPPORTED
    assert found.layer == "0"
    # Of the shift the scatter of the last batches is taken off, which here is the drift itself.
    shift = speed * ((1 - momentum) / momentum - 3.5)
    assert found.high > shift > found.low
    assert found.value == pytest.approx(shift, rel=0.15)
    assert "average over the last 10 passes" in found.cause
    assert "A momentum of" in found.cause


def test_statistics_too_young_for_their_momentum_say_so(tmp_path):
    found = stale_answer(traced(tmp_path, net(momentum=1e-3), data(60)), 0.5)
    assert found.verdict is Verdict.SUPPORTED
    assert "have seen 60 passes" in found.cause
    assert "average over 1,000" in found.cause
    assert f"{100 * 0.999**60:.1f} %" in found.cause
    assert found.since == 59


def test_a_plain_average_says_that_the_first_weights_count_as_much(tmp_path):
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 2))
    found = stale_answer(traced(tmp_path, model, drifting(60, 0.2)), 0.5)
    assert found.verdict is Verdict.SUPPORTED
    assert "plain average over all 60 passes" in found.cause


def test_scatter_of_small_batches_is_not_called_stale(tmp_path):
    found = stale_answer(traced(tmp_path, net(momentum=0.5), data(100, samples=4), lr=1e-4), 0.5)
    assert found.verdict is not Verdict.SUPPORTED


def test_what_they_cost_is_told_where_the_run_knows_it(tmp_path):
    model = net(momentum=1e-3)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with gradflow.Tracer(model, tmp_path, optimizer=optimizer) as tracer:
        for x in data(40):
            model(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch(val_accuracy=0.725, recalibrated_val_accuracy=0.981)
    assert "72.5 % with them and 98.1 %" in stale_answer(gradflow.open_run(tmp_path), 0.5).note


@pytest.mark.parametrize("layer", [nn.Identity(), nn.BatchNorm1d(6, track_running_stats=False)])
def test_without_running_statistics_it_is_not_asked(tmp_path, layer):
    model = nn.Sequential(nn.Linear(6, 6), layer, nn.Linear(6, 2))
    found = stale_answer(traced(tmp_path, model, data(3)), 0.5)
    assert isinstance(found, NotAsked)
    assert found.applies is isinstance(layer, nn.BatchNorm1d)


def test_too_few_passes_are_not_asked(tmp_path):
    found = stale_answer(traced(tmp_path, net(), data(12)), 0.5)
    assert found.reason == "the batch norms have seen 12 passes, and 30 are needed"


def test_a_batch_norm_that_never_saw_a_batch_is_frozen(tmp_path):
    model = net()
    model[1].eval()
    found = frozen_answer(traced(tmp_path, model, data(8)))
    assert found.verdict is Verdict.SUPPORTED
    assert found.layer == "1"
    assert "normalize nothing" in found.cause


def test_a_batch_norm_with_statistics_of_its_own_is_frozen_on_purpose(tmp_path):
    model = net()
    for x in data(20):
        model(x)
    model[1].eval()
    found = frozen_answer(traced(tmp_path, model, data(8)))
    assert found.verdict is Verdict.CONTRADICTED
    assert "on purpose" in found.note


@pytest.mark.filterwarnings("ignore:gradflow")
def test_a_model_left_in_evaluation_mode_is_told_from_that_step_on(tmp_path):
    model = net()

    def stay(step):
        if step == 5:
            model.eval()  # as for a validation, and never back

    found = frozen_answer(traced(tmp_path, model, data(12), before_step=stay))
    assert found.verdict is Verdict.SUPPORTED
    assert found.since == 5
    assert found.value == 7
    assert "1 BatchNorm1d and 1 Dropout do not act" in found.cause


@pytest.mark.filterwarnings("ignore:gradflow")
def test_a_model_that_is_the_same_in_both_modes_may_stay_in_either(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, 2)).eval()
    assert isinstance(frozen_answer(traced(tmp_path, model, data(8))), NotAsked)


def test_fine_tuning_in_evaluation_mode_is_on_purpose_if_the_tracer_was_told(tmp_path):
    model = net()
    for x in data(20):
        model(x)
    found = frozen_answer(traced(tmp_path, model.eval(), data(8), modes="all"))
    assert found.verdict is Verdict.CONTRADICTED
    assert math.isclose(found.value, 0)
