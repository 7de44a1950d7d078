"""The programs of the README run as they stand there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
THREE_LINES, LOOP = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    batches = [(torch.randn(6, 4), torch.randint(2, (6,))) for _ in range(3)]
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": nn.CrossEntropyLoss(),
        "loader": batches,
        "epochs": 2,
    }


def test_the_three_lines_record_any_training(names):
    def train(model, optimizer):
        for inputs, targets in names["loader"]:
            names["criterion"](model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    exec(THREE_LINES, names | {"train": train})
    run = gradflow.open_run("runs/mine")
    assert sorted(run.gradients.step.unique()) == [0, 1, 2]
    assert run.description["status"] == "complete"


def test_the_loop_records_epochs_and_loss(names):
    exec(LOOP, names)
    run = gradflow.open_run("runs/mine")
    assert run.epochs.train_loss.notna().tolist() == [True, True]
    assert run.steps.loss.notna().all()


def test_the_first_screen_has_the_command_that_does_it_all():
    assert SHELL[0].strip() == (
        "pip install -e . && python -m gradflow.train_and_trace && python -m gradflow.report"
    )
    assert README.index(SHELL[0]) < README.index("\n## ")
    assert README.index(THREE_LINES) < README.index(SHELL[0])
