"""Why weights hardly move: each training has the one cause that it was given."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import read_health
from analyses.result import Verdict


@pytest.fixture
def readings(tmp_path):
    """Trains a small network and returns its readings by condition."""

    def traced(rate=0.05, clip=None, dtype=torch.float32, loss_scale=1.0, make=torch.optim.SGD):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
        inputs, targets = torch.randn(32, 6, dtype=dtype), torch.randint(0, 3, (32,))
        optimizer = make(model.parameters(), lr=rate)
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
            for _ in range(10):
                (loss_scale * F.cross_entropy(model(inputs).float(), targets)).backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
        run = gradflow.open_run(tmp_path / "run")
        return {one.condition: one for one in read_health(run)}

    return traced


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"rate": 1e-9}, "The learning rate of 1.0e-9 is the cause"),
        ({"rate": 1e-9, "make": torch.optim.AdamW}, "The learning rate of 1.0e-9 is the cause"),
        ({"clip": 1e-7}, "Clipping multiplies the gradient with"),
        ({"loss_scale": 1e-8}, "The gradient is the cause"),
        ({"rate": 1e-6, "dtype": torch.bfloat16}, "they are smaller than bfloat16 can hold"),
    ],
)
def test_the_cause_of_stalled_weights_is_named(readings, options, cause):
    found = readings(**options)["stalled"]
    assert found.verdict is Verdict.SUPPORTED
    assert cause in found.cause


def test_the_usual_clipping_is_not_ill(readings):
    usual = readings(clip=0.1)["clipped"]
    assert usual.verdict is Verdict.CONTRADICTED
    assert usual.value < 1


def test_the_factor_of_clipping_is_that_of_the_recorded_norms(readings, tmp_path):
    found = readings(clip=1e-7)["clipped"]
    assert found.verdict is Verdict.SUPPORTED
    rows = gradflow.open_run(tmp_path / "run").parameters
    total = (rows[["gradient_norm", "backward_gradient_norm"]] ** 2).groupby(rows["step"]).sum()
    factors = (total["gradient_norm"] / total["backward_gradient_norm"]) ** 0.5
    assert found.value == pytest.approx(factors.iloc[-6:].median(), rel=1e-9)
