"""After a failure, only the tables that were not yet written are written; many rows do not wait."""

import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn

import gradflow
from gradflow.errors import RunError
from gradflow.hooks import store
from gradflow.hooks.store import RecordStore
from gradflow.runs.format.manifest import read_manifest
from gradflow.runs.format.quantity import STEP
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing import run
from gradflow.runs.writing.run import RunWriter


def test_tables_written_before_a_failure_are_not_written_once_more(tmp_path, monkeypatch):
    write, tried, written = run.write_atomically, [], []

    def fail_once(path, content):
        name = path.parent.name
        tried.append(name)
        if tried.count("parameters") == 1 and name == "parameters":
            raise RunError("the disk is full")
        write(path, content)
        written.append(name)

    monkeypatch.setattr(run, "write_atomically", fail_once)
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
    # Those before it are listed although their call failed.
    listed = {name.partition("/")[0] for name in read_manifest(tmp_path / "run").files}
    assert listed >= set(tried)


def recorded(folder, steps=5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, folder, optimizer=optimizer, histograms=True) as tracer:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(3, 4)).sum().backward()
            optimizer.step()
        tracer.end_epoch()
    return gradflow.open_run(folder)


def test_a_step_of_many_rows_does_not_wait_and_its_rows_are_the_same(tmp_path, monkeypatch):
    sizes, written = [], []
    transfer, append = RecordStore.transfer, RunWriter.append_all

    def counted(self):
        sizes.append(len(self._records))
        transfer(self)

    def noted(self, tables, first_step, last_step):
        written.extend((name, first_step, last_step) for name in tables)
        append(self, tables, first_step, last_step)

    before = recorded(tmp_path / "before")
    monkeypatch.setattr(RecordStore, "transfer", counted)
    monkeypatch.setattr(RunWriter, "append_all", noted)
    rows = sum(len(before.table(name)) for name in ("activations", "gradients", "parameters")) // 5
    monkeypatch.setattr(store, "_ROWS_PER_TRANSFER", rows + 1)
    of_steps = [name for name, one in TABLES.items() if STEP in one.keys]
    all_rows = sum(len(before.table(name)) for name in of_steps) // 5
    monkeypatch.setattr(store, "_ROWS_PER_PART", 3 * all_rows)
    after = recorded(tmp_path / "after")
    assert [size for size in sizes if size] == [2, 2, 1]
    assert [span[1:] for span in written if span[0] == "gradients"] == [(0, 3), (4, 4)]
    for name in ("activations", "gradients", "parameters", "gradient_histograms", "steps"):
        assert_frame_equal(before.table(name), after.table(name))
