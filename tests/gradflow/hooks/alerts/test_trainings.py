"""Alerts of real trainings: when a planted condition begins and ends."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.errors import TracingError


def train(
    folder,
    model,
    steps,
    before=lambda step: None,
    *,
    inputs=None,
    optimizer=None,
    before_update=lambda step: None,
    **options,
):
    """Train a classifier of 8 inputs and 4 classes; return the alerts."""
    told = []
    options.setdefault("alerts", told.append)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(8, 4, generator=generator)
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options) as tracer:
        for step in range(steps):
            x = torch.randn(16, 8, generator=generator)
            y = (x @ weights).argmax(1)
            before(step)
            loss = F.cross_entropy(model(x if inputs is None else inputs(step, x)), y)
            tracer.log(loss=loss)
            loss.backward()
            before_update(step)
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return told


def net(seed=0, activation=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 24), activation(), nn.Linear(24, 24), activation(), nn.Linear(24, 4)
    )


def short_of(alerts):
    return [(one.condition, one.begins, one.step, one.noticed) for one in alerts]


@pytest.fixture(scope="module")
def dead_and_alive(tmp_path_factory):
    """A ReLU whose biases are at -20 in steps 20 to 79, and the alerts."""
    model = net()

    def before(step):
        if step in (20, 80):
            with torch.no_grad():
                model[0].bias.fill_(-20.0 if step == 20 else 0.0)

    folder = tmp_path_factory.mktemp("dead") / "run"
    return train(folder, model, 112, before), folder


def test_dead_units_are_told_once_as_they_begin_and_end(dead_and_alive):
    told = [one for one in dead_and_alive[0] if one.condition == "dead"]
    # Numbers come off the device after steps 15, 31, ...; of the last 20 all must be dead.
    assert short_of(told) == [("dead", True, 20, 47), ("dead", False, 95, 95)]
    assert told[0].layer == "1"
    assert (told[0].number, told[0].bound) == (1.0, 0.5)
    assert told[0].sentence == ("24 of 24 channels of 1 are 0 on every input since step 20 [dead]")
    assert told[1].sentence == ("no longer, as of step 95: dead units [dead], seen since step 20")


def test_the_run_keeps_what_was_told(dead_and_alive):
    told, folder = dead_and_alive
    assert gradflow.open_run(folder).description["alerts"] == [one.as_dict() for one in told]


def test_a_healthy_training_has_no_alert(tmp_path):
    assert train(tmp_path / "run", net(), 96) == []


def test_a_loss_that_spikes_is_told_with_its_step(tmp_path):
    def inputs(step, x):
        return -30 * x if step == 40 else x

    told = train(tmp_path / "run", net(), 64, inputs=inputs)
    spike = next(one for one in told if one.condition == "spiking")
    assert (spike.step, spike.begins) == (40, True)
    assert "in step 40" in spike.sentence
    assert spike.number >= spike.bound == 7


def test_values_that_are_not_finite_name_the_first_layer(tmp_path):
    model = net()

    def before(step):
        if step == 35:
            with torch.no_grad():
                model[2].weight[0, 0] = math.nan

    told = train(tmp_path / "run", model, 64, before)
    first = told[0]
    assert (first.condition, first.step, first.layer, first.noticed) == ("non-finite", 35, "2", 47)
    assert "in the output of 2" in first.sentence


def test_parameters_out_of_reach_and_out_of_the_optimizer_are_told(tmp_path):
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    torch.manual_seed(0)
    cut = nn.Sequential(nn.Linear(8, 8), Cut(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    told = train(tmp_path / "a", cut, 48)
    assert short_of(told) == [("disconnected", True, 0, 31)]
    assert "2 of 6 trained parameters (0.weight and 0.bias)" in told[0].sentence
    model = net()
    partly = torch.optim.SGD(model[2:].parameters(), lr=0.05)
    told = train(tmp_path / "b", model, 48, optimizer=partly)
    assert short_of(told) == [("not-updated", True, 0, 31)]
    assert told[0].layer == "0.weight"


def test_a_tiny_learning_rate_is_told_and_a_warm_up_is_not(tmp_path):
    model = net()
    told = train(tmp_path / "a", model, 48, optimizer=torch.optim.SGD(model.parameters(), lr=1e-10))
    assert short_of(told) == [("stalled", True, 0, 31)]
    model = net()
    slow = torch.optim.SGD(model.parameters(), lr=0.0)

    def warm_up(step):
        slow.param_groups[0]["lr"] = 1e-6 * step

    assert train(tmp_path / "b", model, 48, warm_up, optimizer=slow) == []


def test_a_loss_that_rises_is_told(tmp_path):
    model = net()
    wrong = torch.optim.SGD(model.parameters(), lr=0.03, maximize=True)
    told = train(tmp_path / "run", model, 160, optimizer=wrong)
    assert "not-learning" in {one.condition for one in told}


def test_raise_stops_the_training_and_keeps_what_was_recorded(tmp_path):
    model = net()
    slow = torch.optim.SGD(model.parameters(), lr=1e-10)
    with pytest.raises(TracingError, match=r"stopped by an alert: .* hardly moves"):
        train(tmp_path / "run", model, 96, optimizer=slow, alerts="raise")
    run = gradflow.open_run(tmp_path / "run")
    assert run.steps["step"].tolist() == list(range(32))
    assert run.description["status"] == "failed"
    assert run.description["alerts"][0]["condition"] == "stalled"


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_gradients_that_change_by_depth_are_told(tmp_path, factor):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8, bias=False) for _ in range(5)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, factor)
    deep = nn.Sequential(*layers)

    def inputs(step, x):
        return x * factor**-5

    told = train(
        tmp_path / "run",
        deep,
        16,
        inputs=inputs,
        optimizer=torch.optim.SGD(deep.parameters(), lr=0.0),
    )
    expected = "vanishing" if factor < 1 else "exploding"
    found = next(one for one in told if one.condition == expected)
    assert (found.step, found.layer) == (0, "0")
    # Orthogonal weights times s change the norm by s a layer, over as many layers as there are.
    assert found.number == pytest.approx(factor**5, rel=1e-3)


@pytest.fixture(scope="module")
def far_too_large(tmp_path_factory):
    """The alerts of a training whose learning rate is far too large in steps 20 to 59."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def before(step):
        optimizer.param_groups[0]["lr"] = 4.0 if 20 <= step < 60 else 1e-4

    folder = tmp_path_factory.mktemp("large") / "run"
    return train(folder, model, 112, before, optimizer=optimizer)


def test_steps_that_are_too_large_are_told_as_they_begin_and_end(far_too_large):
    told = [one for one in far_too_large if one.condition == "overshooting"]
    # Three large steps and ten more must be there; of the last 20 none is large at the end.
    assert short_of(told) == [("overshooting", True, 20, 31), ("overshooting", False, 79, 79)]
    assert told[0].sentence.startswith("steps are too large since step 20: one changes the weights")
    assert told[0].number > told[0].bound == 0.1


def test_a_loss_that_is_climbed_is_not_told_as_overshooting(tmp_path):
    model = net()
    wrong = torch.optim.SGD(model.parameters(), lr=0.3, maximize=True)
    told = train(tmp_path / "run", model, 64, optimizer=wrong)
    assert "overshooting" not in {one.condition for one in told}


def test_large_steps_with_which_the_loss_falls_are_not_told(tmp_path):
    model = net()
    with torch.no_grad():
        for one in model.parameters():
            one.mul_(0.1)  # small weights grow by large factors
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    assert train(tmp_path / "run", model, 96, optimizer=adam) == []


class Adapted(nn.Module):
    """A frozen layer with two low-rank factors beside it, of which the second starts at 0."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 4).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize(("bound", "rule", "expected"), [
    (1e-6, torch.optim.Adam, set()),
    (1e-6, torch.optim.SGD, {"clipped"}),
])  # fmt: skip
def test_adapters_that_start_at_zero_hide_no_clipping_and_make_none(
    tmp_path, bound, rule, expected
):
    torch.manual_seed(0)
    model = Adapted()
    optimizer = rule([model.down.weight, model.up.weight], lr=0.01)

    def clip(step):
        nn.utils.clip_grad_norm_(model.parameters(), bound)

    told = train(tmp_path / "run", model, 64, optimizer=optimizer, before_update=clip)
    assert {one.condition for one in told} & {"clipped"} == expected


def test_a_loss_that_rises_is_not_told_where_the_objective_moves(tmp_path):
    model = net()
    wrong = torch.optim.SGD(model.parameters(), lr=0.03, maximize=True)
    told = train(tmp_path / "run", model, 160, optimizer=wrong, objective="moving")
    assert "not-learning" not in {one.condition for one in told}
    assert gradflow.open_run(tmp_path / "run").description["objective"] == "moving"
    with pytest.raises(TracingError, match=r'objective= is "fixed" or "moving"'):
        gradflow.Tracer(net(), tmp_path / "other", objective="falling")
