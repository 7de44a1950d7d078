"""A small training, recorded and written to sinks."""

import pytest
import torch
from torch import nn

import gradflow


@pytest.fixture
def train(tmp_path):
    """Trains a small network with the given sinks; gives the recorded run and the weights."""

    def trained(sinks=(), epochs=2, steps=3, folder="run", **options):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with gradflow.Tracer(
            model, tmp_path / folder, optimizer=optimizer, sinks=sinks, **options
        ) as tracer:
            for epoch in range(epochs):
                for _ in range(steps):
                    optimizer.zero_grad()
                    model(torch.randn(3, 4)).square().sum().backward()
                    optimizer.step()
                tracer.end_epoch(train_loss=float(epoch), note="text")
        return gradflow.open_run(tmp_path / folder), model.state_dict()

    return trained


@pytest.fixture
def expected():
    """The values of a column of a recorded run, by name and step, as sinks ought to get them."""

    def values(run, table, column, quantity, row="layer"):
        frame = run.table(table)
        return {
            (f"gradflow/{quantity}/{name}" if row else f"gradflow/{quantity}", step): float(value)
            for name, step, value in zip(
                frame[row] if row else frame["step"], frame["step"], frame[column], strict=True
            )
        }

    return values
