"""What the callbacks of all libraries share, with a trainer of two lines."""

import gc
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import RunError, TracingError
from gradflow.integrations.trainer_run import (
    ClosedAtOnce,
    TrainerRun,
    named_like_ours,
    numbers,
    whole_model,
)


def begin(run, **how):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.begin(model, optimizer, **how)

    def step():
        model(torch.ones(3, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_a_run_that_nobody_ends_is_closed_once_its_callback_is_dropped(tmp_path):
    run = TrainerRun(tmp_path / "run", {})
    step = begin(run)
    for _ in range(3):
        step()
    del run
    gc.collect()
    found = gradflow.open_run(tmp_path / "run")
    assert found.description["status"] == "failed"
    assert len(found.steps) == 3
    step()  # the model trains on, untraced
    assert len(gradflow.open_run(tmp_path / "run").steps) == 3


def test_an_epoch_is_written_with_what_is_noted_after_it(tmp_path):
    run = TrainerRun(tmp_path / "run", {})
    step = begin(run)
    step()
    run.note_metrics({"before": 1.0})  # belongs to no epoch that is over
    run.epoch_is_over()
    run.note_metrics({"val_loss": 1.0})
    run.epoch_is_over()
    run.note_metrics({"val_loss": torch.tensor(2.0)})
    run.write_epoch()
    run.write_epoch()
    step()
    run.epoch_is_over()
    run.end()
    epochs = gradflow.open_run(tmp_path / "run").epochs
    assert epochs.epoch.tolist() == [1, 2]
    assert epochs.val_loss.iloc[0] == 2.0
    assert "before" not in epochs


def test_a_closed_run_goes_on_with_the_state_kept_from_its_end(tmp_path):
    run = TrainerRun(tmp_path / "run", {})
    begin(run)()
    run.epoch_is_over()
    run.end()
    kept = run.state_dict()
    assert kept["step"] == 1
    begin(run, goes_on=True)()
    run.epoch_is_over()
    run.end()
    assert gradflow.open_run(tmp_path / "run").epochs.step.tolist() == [0, 1]
    with pytest.raises(RunError, match="already holds a run"):
        begin(run)


def test_an_error_is_noted_and_none_is_raised(tmp_path):
    run = TrainerRun(tmp_path / "run", {})
    begin(run)()
    run.tracer.writer.close("complete")  # so that closing it again is out of order
    run.fail(ValueError("the user's"))
    run.fail(ValueError("again"))
    assert run.tracer is None
    assert run.state_dict()["step"] == 1


def test_nothing_is_done_before_the_training_begins(tmp_path):
    run = TrainerRun(tmp_path / "run", {})
    run.epoch_is_over()
    run.note_metrics({"loss": 1.0})
    run.write_epoch()
    run.end()
    run.fail(ValueError())
    assert run.state_dict() == {}
    assert not run.has_begun_epoch
    assert not (tmp_path / "run").exists()


def test_as_a_context_it_is_closed_at_once_with_the_error_of_the_user(tmp_path):
    class Callback(ClosedAtOnce):
        def __init__(self):
            self._run = TrainerRun(tmp_path / "run", {})

    def trains(callback):
        begin(callback._run)()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Callback() as callback:
        trains(callback)
    assert gradflow.open_run(tmp_path / "run").description["status"] == "interrupted"


def test_a_program_that_is_ended_by_a_signal_leaves_a_run_that_reads_and_goes_on(tmp_path):
    program = (
        f"import os, signal, sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch\nfrom test_trainer_run import TrainerRun, begin\n"
        f"run = TrainerRun({str(tmp_path / 'run')!r}, {{}})\n"
        "step = begin(run)\n[step() for _ in range(3)]\nrun.epoch_is_over()\n"
        f"torch.save(run.state_dict(), {str(tmp_path / 'kept')!r})\nstep()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "running"
    assert run.steps.step.tolist() == [0, 1, 2]  # all that the checkpoint needs
    again = TrainerRun(tmp_path / "run", {})
    again.load_state_dict(torch.load(tmp_path / "kept", weights_only=True))
    begin(again, goes_on=True)()
    again.end()
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "complete"
    assert run.steps.step.tolist() == [0, 1, 2, 3]


def test_numbers_are_what_can_be_written():
    given = {
        "loss": torch.tensor(0.5), "accuracy": 1, "flag": True, "epoch": 3.0, "step": 7,
        "name": "x", "3": "3", "matrix": torch.ones(2, 2), "none": None,
    }  # fmt: skip
    assert numbers(given) == {"loss": 0.5, "accuracy": 1.0, "flag": 1.0}


def test_metrics_are_named_as_those_of_gradflow():
    given = {"eval_loss": 1, "eval_runtime": 2, "loss": 3, "other": 4}
    found = named_like_ours(given, {"eval_": "val_", "loss": "train_loss"}, ("_runtime",))
    assert found == {"val_loss": 1, "train_loss": 3, "other": 4}


def test_a_single_process_has_the_model_whole():
    model = nn.Linear(1, 1)
    assert whole_model(model) is model


@pytest.mark.parametrize("name", ["model", "optimizer", "scaler", "resume", "folder"])
def test_what_the_trainer_knows_is_no_option(tmp_path, name):
    with pytest.raises(TracingError, match=f"{name}= is what the callback takes"):
        TrainerRun(tmp_path, {name: None})
