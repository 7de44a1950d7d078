"""Small runs written by `RunWriter`, and interruptions at a chosen point of writing."""

import os
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import gradflow
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing import merging as merging_module
from gradflow.runs.writing.run import RunWriter

STEPS = 2
LAYERS = ["stem", "block.conv", "head"]


class Interruption(BaseException):
    """An exception that no code catches."""


def gradients(epoch):
    """Rows of all layers at each step of `epoch`, all values different."""
    steps = [epoch * STEPS - STEPS + index for index in range(STEPS) for _ in LAYERS]
    rows = len(steps)
    values = np.random.default_rng(epoch)
    columns = {"epoch": [epoch] * rows, "step": steps, "layer": LAYERS * STEPS}
    for quantity in TABLES["gradients"].columns:
        if quantity.name not in columns:
            whole = quantity.dtype.startswith("int")
            columns[quantity.name] = (
                values.integers(0, 9, rows) if whole else values.normal(size=rows)
            )
    return columns


def predictions(epoch):
    """Rows of four images at the end of `epoch`: a table without steps."""
    return {
        "epoch": [epoch] * 4,
        "image": [0, 1, 2, 3],
        "target": [0, 1, 0, 1],
        "prediction": [epoch % 2] * 4,
        "probability": np.random.default_rng(epoch).random(4),
    }


def epochs(epoch):
    """The row of `epoch`; the first epoch lacks a scalar that the others have."""
    scalars = {"train_loss": [1 / epoch]} | ({} if epoch == 1 else {"accuracy": [epoch / 10]})
    return {"epoch": [epoch], "step": [epoch * STEPS - 1], **scalars}


MADE = {"gradients": gradients, "predictions": predictions, "epochs": epochs}


class SmallRun:
    """Writes epochs of a small run."""

    steps = STEPS
    layers = LAYERS
    interruption = Interruption

    def write(self, writer, first, last, tables=tuple(MADE), done=None):
        """Write the epochs `first` to `last`; each written part is appended to `done`."""
        for epoch in range(first, last + 1):
            for name in tables:
                start = (epoch - 1) * STEPS
                writer.append(name, MADE[name](epoch), start, start + STEPS - 1)
                if done is not None:
                    done.append((name, epoch))

    def record(self, folder, last, tables=tuple(MADE)):
        """A finished run of the epochs up to `last`."""
        writer = RunWriter(folder, {"network": "small", "seed": 1})
        self.write(writer, 1, last, tables)
        writer.close("complete")
        return folder

    def tables(self, folder):
        """Every table that has rows."""
        run = gradflow.open_run(folder)
        return {name: run.table(name) for name in TABLES if len(run.table(name))}

    @contextmanager
    def interrupted(self, monkeypatch, at):
        """Raises `Interruption` at the `at`-th fault point within the block, counted from 1."""
        count = 0

        def fault_point(_):
            nonlocal count
            count += 1
            if count == at:
                raise Interruption

        with monkeypatch.context() as patch:
            for name, module in list(sys.modules.items()):
                if name.startswith("gradflow.runs.") and hasattr(module, "fault_point"):
                    patch.setattr(module, "fault_point", fault_point)
            yield


@pytest.fixture
def small_run():
    return SmallRun()


@pytest.fixture
def merging(monkeypatch):
    """Sets how many parts are merged at once."""
    return lambda number: monkeypatch.setattr(merging_module, "PARTS_PER_MERGE", number)


@pytest.fixture
def unflushed(monkeypatch):
    """Turns off flushing to the disk, to be quicker: no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
