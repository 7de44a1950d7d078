"""A small network and its data, and what is compared between two runs of its training."""

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

TABLES = ("layers", "activations", "gradients", "junctions", "parameters", "steps", "modes")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, x):
        return x + self.inner(x)


@pytest.fixture
def make_network():
    """Makes the same network each time: with dropout, and a skip."""

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), Block(), nn.Linear(8, 3))

    return make


@pytest.fixture
def examples():
    """24 inputs with their classes."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(24, 4, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 3, inputs.shape[:1], generator=generator))


@pytest.fixture
def assert_same_run():
    """Compares two runs, number by number: what was recorded, and where epochs end."""

    def compare(mine, theirs, *, rtol=0.0, without=None):
        for name in TABLES:
            found, wanted = mine.table(name), theirs.table(name)
            key = next((one for one in ("layer", "parameter") if one in wanted), None)
            if without and key:
                found, wanted = (
                    one[~one[key].astype(str).str.endswith(without)].reset_index(drop=True)
                    for one in (found, wanted)
                )
            assert len(wanted) > 0 or name in ("junctions", "modes"), name
            exactly = {"check_exact": True} if not rtol else {"rtol": rtol, "atol": rtol / 100}
            pd.testing.assert_frame_equal(found, wanted, obj=name, **exactly)
        assert mine.epochs[["epoch", "step"]].equals(theirs.epochs[["epoch", "step"]])

    return compare


@pytest.fixture
def assert_same_weights():
    """Compares two models bit for bit."""

    def compare(mine, theirs):
        wanted = theirs.state_dict()
        assert mine.state_dict().keys() == wanted.keys()
        for name, value in mine.state_dict().items():
            assert torch.equal(value, wanted[name]), name

    return compare


@pytest.fixture
def noting():
    """A function for `sinks=`, with the names and steps that it was given in `seen`."""

    def note(name, value, step):
        note.seen.append((name, step))

    note.seen = []
    return note
