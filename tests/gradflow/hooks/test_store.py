"""After a failure, only the tables that were not yet written are written."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import RunError
from gradflow.runs.writing.run import RunWriter


def test_tables_written_before_a_failure_are_not_written_once_more(tmp_path, monkeypatch):
    append, tried, written = RunWriter.append, [], []

    def fail_once(self, name, columns, first_step, last_step):
        tried.append(name)
        if tried.count("parameters") == 1 and name == "parameters":
            raise RunError("the disk is full")
        append(self, name, columns, first_step, last_step)
        written.append(name)

    monkeypatch.setattr(RunWriter, "append", fail_once)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        folder = tmp_path / "run"
        with gradflow.Tracer(model, folder, optimizer=optimizer, strict=True) as tracer:
            model(torch.randn(3, 4)).sum().backward()
            optimizer.step()
            tracer.end_epoch()

    with pytest.raises(RunError, match="disk is full"):
        train()
    assert tried.index("parameters") > 0
    assert sorted(written) == sorted(set(tried))
