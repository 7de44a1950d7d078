"""`tracer.live()` outside notebooks: a line of text that has the recorded numbers."""

import io
import re
import sys

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import ConfigurationError
from gradflow.hooks.processes.joining import Processes
from gradflow.hooks.store import RecordStore
from gradflow.sinks import Notebook
from gradflow.sinks.notebook import screen, sink


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()


def test_the_last_line_says_what_was_recorded_last(train, capsys):
    run, weights = train(Notebook(), steps=20)
    lines = capsys.readouterr().out.splitlines()
    # One at the first numbers, and one at the end: more often only after a while.
    assert 1 <= len(lines) <= 3
    last = run.gradients[run.gradients.step >= 40 - 16].groupby("layer").norm.mean()
    expected = (
        f"gradflow: step 39, epoch 2 | train_loss 1 | "
        f"gradient_norm {last.min():.2g} to {last.max():.2g} | worst layer "
    )
    assert lines[-1].startswith(expected)
    assert re.fullmatch(r"[012]: .* the median of all layers", lines[-1].removeprefix(expected))
    _, plain = train(folder="plain", steps=20)
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_in_a_terminal_the_line_is_renewed_in_place(train, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sink, "SECONDS_BETWEEN_RENEWALS", 0.0)
    monkeypatch.setenv("COLUMNS", "50")
    train(Notebook(), steps=20)
    first, *lines = terminal.getvalue().split("\r\x1b[K")
    assert first == ""
    assert len(lines) >= 4
    assert all(len(line.rstrip("\n")) <= 49 for line in lines)
    assert [line.endswith("\n") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].startswith("gradflow: step 39, epoch 2 | train_loss 1 | grad")


def test_other_quantities_and_epochs_can_be_shown(train, capsys):
    view = Notebook("activation_rms/0", every="epoch", curve="train_loss")
    run, _ = train([view, lambda *one: None], steps=5)
    assert capsys.readouterr().out.splitlines()[-1].startswith("gradflow: epoch 2 | train_loss 1")
    history = view.state.history
    assert history.names == ["0"]
    assert history.columns == [(1, 1, 1), (2, 2, 2)]
    # Of each epoch, the last step.
    known = run.activations[(run.activations.layer == "0") & run.activations.step.isin([4, 9])]
    assert history.means(0, 2)[:, 1].tolist() == known.rms.tolist()
    # Those that can be looked up later are named in the run, and only they.
    assert [one["kind"] for one in run.description["sinks"]] == ["function"]


@pytest.mark.parametrize("within", [False, True])
def test_live_may_be_called_before_or_within_the_training(small, tmp_path, capsys, within):
    model, optimizer = small
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)
    if not within:
        tracer.live()
    with tracer:
        step(model, optimizer)
        tracer.end_epoch(train_loss=3.0)
        if within:
            tracer.live("parameter_update_to_weight", every="epoch")
        step(model, optimizer)
        tracer.end_epoch(train_loss=2.0, **{"odd\nname": 1})
    said = capsys.readouterr().out
    assert "epoch 2 | train_loss 2 | " in said
    assert r"odd\nname" in said
    assert ("parameter_update_to_weight" if within else "gradient_norm") in said
    assert f"worst {'parameter' if within else 'layer'} " in said
    assert len(gradflow.open_run(tmp_path / "run").steps) == 2


def test_live_without_anything_recorded_ends_quietly(small, tmp_path, capsys):
    model, optimizer = small
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        tracer.live()
    assert capsys.readouterr().out == "gradflow: no step was recorded\n"


def test_of_several_processes_only_the_one_that_writes_shows(small, tmp_path, capsys, monkeypatch):
    model, optimizer = small
    monkeypatch.setattr(Processes, "is_writer", False)
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)
    tracer.live()
    with tracer:
        tracer.live()
        step(model, optimizer)
        tracer.end_epoch(train_loss=3.0)
    assert capsys.readouterr().out == ""


def test_a_view_begins_anew_with_each_run(train, capsys):
    view = Notebook()
    train(view)
    train(view, folder="again", epochs=1)
    assert view.state.history.columns == [(0, 0, 1), (1, 1, 1), (2, 2, 1)]


@pytest.mark.parametrize(
    "wrong", ["gradients", "step_gradient_norm", "gradient_magnitudes", "epoch_train_loss", "*", 3]
)
def test_what_no_layer_has_is_refused(small, tmp_path, wrong):
    model, optimizer = small
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)
    with pytest.raises(ConfigurationError, match="such as gradient_norm or activation_rms"):
        tracer.live(wrong)


def test_a_display_that_fails_later_is_said_once(train, monkeypatch):
    calls = []

    def renew(self, state):
        calls.append(state.moment)
        raise BrokenPipeError("the reader has gone")

    monkeypatch.setattr(screen.Terminal, "renew", renew)
    with pytest.warns(UserWarning, match="nothing more is sent to notebook") as said:
        run, _ = train(Notebook(), steps=40)
    assert [str(one.message).count("the reader has gone") for one in said] == [1]
    assert "export" not in str(said[0].message)
    assert len(calls) == 1
    assert len(run.steps) == 80


def test_nothing_is_transferred_from_the_device_sooner_than_without(train, monkeypatch):
    calls = []
    transfer = RecordStore.transfer
    monkeypatch.setattr(RecordStore, "transfer", lambda one: (calls.append(0), transfer(one)))
    train(Notebook(), steps=40)
    shown = len(calls)
    train(folder="plain", steps=40)
    assert len(calls) == 2 * shown


def test_what_draws_is_not_loaded_outside_notebooks(train):
    before = {*sys.modules}
    train(Notebook())
    loaded = {name.partition(".")[0] for name in {*sys.modules} - before}
    assert loaded.isdisjoint({"anywidget", "IPython", "ipywidgets", "traitlets"})
