"""Whom alerts are told to, and that nothing of it ends or changes a training."""

import logging
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.alerts.watch import Watch


def train(folder, steps=40, lr=1e-10, resume=None, stop=None, ends_epoch=True, **options):
    """Train weights that hardly move; return the tracer, its state after `stop` steps, weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    state = None
    with gradflow.Tracer(model, folder, optimizer=optimizer, resume=resume, **options) as tracer:
        for step in range(steps):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if stop == step + 1:
                state = tracer.state_dict()
        if ends_epoch:
            tracer.end_epoch()
    return tracer, state, [one.detach().clone() for one in model.parameters()]


def test_warnings_have_a_category_of_their_own(tmp_path):
    with pytest.warns(
        gradflow.AlertWarning, match=r"hardly moves since step 0.*\[stalled\]"
    ) as all_:
        train(tmp_path / "run", alerts="warn")
    assert len(all_) == 1


def test_the_log_has_them(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "gradflow"):
        train(tmp_path / "run", alerts="log")
    assert [(one.levelname, "[stalled]" in one.message) for one in caplog.records] == [
        ("WARNING", True)
    ]


def test_several_ways_at_once(tmp_path, caplog):
    told = []
    train(tmp_path / "run", alerts=["log", told.append])
    assert [one.condition for one in told] == ["stalled"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("wrong", ["email", 3, ["warn", None]])
def test_other_ways_are_refused(tmp_path, wrong):
    with pytest.raises(TracingError, match=r'alerts= is one or several of "warn", "log", "raise"'):
        train(tmp_path / "run", alerts=wrong)


def test_a_function_that_fails_is_reported_once_and_the_training_goes_on(tmp_path):
    def fails(alert):
        raise ValueError("no network")

    with pytest.warns(UserWarning, match="alerts= failed: ValueError: no network"):
        train(tmp_path / "run", alerts=fails)
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "complete"
    assert len(run.steps) == 40


def test_a_rule_that_fails_is_reported_once_and_the_training_goes_on(tmp_path, monkeypatch):
    def fails(self, tables):
        raise RuntimeError("a defect")

    monkeypatch.setattr(Watch, "look", fails)
    with pytest.warns(UserWarning, match="could not be looked at: RuntimeError: a defect"):
        train(tmp_path / "run", alerts="raise")
    assert len(gradflow.open_run(tmp_path / "run").steps) == 40


def test_an_alert_at_the_very_end_is_told_where_nothing_is_left_to_stop(tmp_path):
    with pytest.warns(gradflow.AlertWarning, match="at the end of the training: .* hardly moves"):
        train(tmp_path / "run", 24, alerts="raise", ends_epoch=False)


def test_the_end_of_an_epoch_stops_too(tmp_path):
    with pytest.raises(TracingError, match="stopped by an alert"):
        train(tmp_path / "run", 24, alerts="raise")


@pytest.mark.parametrize("stop", [5, 24, 36])
def test_a_run_that_goes_on_tells_nothing_twice_and_misses_nothing(tmp_path, stop):
    told = []
    _, state, _ = train(tmp_path / "run", stop, stop=stop, alerts=told.append)
    torch.save(state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    train(tmp_path / "run", 40, resume=state, alerts=told.append)
    assert [(one.condition, one.step) for one in told] == [("stalled", 0)]
    kept = gradflow.open_run(tmp_path / "run").description["alerts"]
    assert kept == [one.as_dict() for one in told]


def test_a_run_of_a_tracer_without_alerts_goes_on_with_them(tmp_path):
    _, state, _ = train(tmp_path / "run", 8, stop=8)
    told = []
    train(tmp_path / "run", 40, resume=state, alerts=told.append)
    assert [one.condition for one in told] == ["stalled"]


def test_the_training_is_the_same_bit_for_bit(tmp_path):
    told = []
    _, _, without = train(tmp_path / "a", lr=0.1)
    random = torch.get_rng_state()
    _, _, with_alerts = train(tmp_path / "b", lr=0.1, alerts=told.append)
    assert all(torch.equal(one, other) for one, other in zip(without, with_alerts, strict=True))
    assert torch.equal(random, torch.get_rng_state())


def test_unused_nothing_of_it_is_loaded():
    code = (
        "import sys, gradflow, torch\n"
        "tracer = gradflow.Tracer(torch.nn.Linear(2, 2), 'unused')\n"
        "print([name for name in sys.modules if 'gradflow.hooks.alerts' in name])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Events(gradflow.sinks.Sink):
    """Keeps what it is told."""

    kind = "events"

    def __init__(self):
        super().__init__(quantities="step_*")
        self.events = []

    def write(self, step, scalars, histograms):
        self.events += [(step, name, value) for name, value in scalars.items() if "alert" in name]


def test_a_sink_of_ones_own_gets_a_number(tmp_path):
    sink, calls = Events(), []

    def function(name, value, step):
        calls.append((name, value, step))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gradflow.AlertWarning)
        train(tmp_path / "run", alerts="warn", sinks=[sink, function])
    assert sink.events == [(31, "gradflow/alert/stalled", 1.0)]
    assert ("gradflow/alert/stalled", 1.0, 31) in calls


def test_tensorboard_gets_the_sentence(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sink = gradflow.sinks.TensorBoard(tmp_path / "events", quantities="step_*")
    train(tmp_path / "run", alerts=print, sinks=sink)
    events = loader.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [one.value for one in events.Scalars("gradflow/alert/stalled")] == [1.0]
    (text,) = events.Tensors("gradflow/alert/stalled/text")
    assert b"hardly moves since step 0" in text.tensor_proto.string_val[0]
    tags = events.SummaryMetadata("gradflow/alert/stalled/text")
    assert tags.plugin_data.plugin_name == "text"


def test_lightning_passes_the_option_on(tmp_path):
    pytest.importorskip("lightning")
    from gradflow.integrations.lightning import GradflowCallback  # noqa: PLC0415

    GradflowCallback(tmp_path / "run", alerts="warn")
    with pytest.raises(TracingError, match=r"no option 'alarms': .*alerts"):
        GradflowCallback(tmp_path / "run", alarms="warn")


def test_a_number_without_bound_is_told_and_kept(tmp_path):
    """A loss that was 0 in all steps before is infinitely many spreads above them."""
    told, model = [], nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, alerts=told.append) as t:
        for step in range(32):
            loss = model(torch.ones(2, 4)).square().mean() * (step == 30)
            t.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        t.end_epoch()
    [spike] = [one for one in told if one.condition == "spiking" and one.begins]
    assert spike.step == 30
    assert spike.number == sys.float_info.max
    kept = gradflow.open_run(tmp_path / "run").description["alerts"]
    assert spike.as_dict() in kept
