"""A training goes on if its run can no longer be written, and says so once."""

import json
import shutil

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import RunError
from gradflow.hooks.store import RecordStore
from gradflow.runs.format import parts
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.lenient import LenientWriter
from gradflow.runs.writing.run import RunWriter

ROWS = {
    **{one.name: [None] for one in TABLES["steps"].columns},
    **{"epoch": [1], "step": [0], "skipped": [False]},
}


@pytest.fixture
def full_disk(monkeypatch):
    """Lets no table be written while its entry `full` is true."""
    disk = {"full": True}
    original = parts.pq.write_table

    def write(*given, **options):
        if disk["full"]:
            raise OSError(28, "No space left on device")
        return original(*given, **options)

    monkeypatch.setattr(parts.pq, "write_table", write)
    return disk


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def epoch(model, optimizer, tracer=None):
    for step in range(3):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    if tracer:
        tracer.end_epoch(train_loss=1.0)


def untraced(epochs):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        epoch(model, optimizer)
    return model


def same_weights(first, second):
    return all(
        torch.equal(one, other)
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_a_failed_write_is_told_and_nothing_is_written_after_it(tmp_path, full_disk):
    told = []
    writer = LenientWriter(RunWriter(tmp_path / "run", {}), told.append)
    for _ in range(2):
        writer.append("steps", ROWS, 0, 0)
    assert len(told) == 1
    assert "No space left on device" in str(told[0])
    full_disk["full"] = False
    writer.append("steps", ROWS, 0, 0)
    writer.close("complete")
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.steps) == 0
    assert run.description["status"] == "failed"


def test_a_failure_that_is_raised_leaves_the_writer_as_it_was(tmp_path, full_disk):
    def raise_it(error):
        raise error

    writer = LenientWriter(RunWriter(tmp_path / "run", {}), raise_it)
    with pytest.raises((RunError, OSError), match="No space left"):
        writer.append("steps", ROWS, 0, 0)
    full_disk["full"] = False
    writer.append("steps", ROWS, 0, 0)
    writer.close("complete")
    run = gradflow.open_run(tmp_path / "run")
    assert (len(run.steps), run.description["status"]) == (1, "complete")


def test_a_training_goes_on_to_the_same_weights_if_the_disk_is_full(tmp_path, full_disk):
    full_disk["full"] = False
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        epoch(model, optimizer, tracer)
        full_disk["full"] = True
        with pytest.warns(
            UserWarning, match="nothing more is written to .*No space left on device"
        ):
            epoch(model, optimizer, tracer)
        epoch(model, optimizer, tracer)  # another warning would be an error
    assert same_weights(model, untraced(3))
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.steps.step) == [0, 1, 2]
    assert list(run.epochs.epoch) == [1]
    assert run.description["status"] == "failed"
    (said,) = run.description["not_recorded"]
    assert "No space left on device" in said


def test_a_training_goes_on_if_its_folder_is_removed(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        epoch(model, optimizer, tracer)
        shutil.rmtree(tmp_path / "run")
        epoch(model, optimizer, tracer)
    assert same_weights(model, untraced(2))
    # The folder is made again, with what was recorded from then on.
    assert list(gradflow.open_run(tmp_path / "run").steps.step) == [3, 4, 5]


def test_it_is_an_error_if_strict(tmp_path, full_disk):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, strict=True) as tracer:
        with pytest.raises((RunError, OSError), match="No space left"):
            epoch(model, optimizer, tracer)
        full_disk["full"] = False
        tracer.end_epoch()
    assert list(gradflow.open_run(tmp_path / "run").steps.step) == [0, 1, 2]


def test_the_users_error_is_kept_if_values_can_no_longer_be_read(tmp_path, monkeypatch):
    """As on a GPU after a failed assertion: every transfer from it raises."""

    def fail(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
            epoch(model, optimizer, tracer)
            epoch(model, optimizer)
            monkeypatch.setattr(RecordStore, "transfer", fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert list(gradflow.open_run(tmp_path / "run").steps.step) == [0, 1, 2]
