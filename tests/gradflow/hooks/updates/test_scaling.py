"""Loss scaling: gradients are those of the unscaled loss, and skipped steps are marked."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError

SCALE = 1024.0
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ),
]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)

    def forward(self, x):
        return x + self.b(self.relu(self.a(x)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), Block(), nn.Linear(6, 2))


def train(folder, *, scaled, unscale=False, bad=(), fused=False, parts=1, device="cpu"):
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler(device, init_scale=SCALE, enabled=scaled)
    with gradflow.Tracer(model, folder, optimizer=optimizer, scaler=scaler, schedule=1):
        for step in range(4):
            torch.manual_seed(step)
            for _ in range(parts):
                loss = model(torch.randn(5, 4).to(device)).square().mean() / parts
                loss = loss * math.inf if step in bad else loss
                scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert "step" not in vars(scaler)
    return gradflow.open_run(folder), model


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("device", DEVICES)
def test_every_table_reads_as_without_a_scaler(tmp_path, fused, unscale, parts, device):
    options = {"fused": fused, "parts": parts, "device": device}
    run, model = train(tmp_path / "scaled", scaled=True, unscale=unscale, **options)
    expected, plain = train(tmp_path / "plain", scaled=False, **options)
    # A power of two scales without rounding, so that both train alike; on CUDA, the fused kernel
    # that takes the scale away rounds its products otherwise than the one without a scale.
    rounding = 1e-6 if device == "cuda" else 0
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rounding, atol=rounding)
    tolerance = 1e-4 if device == "cuda" else 1e-6
    for table in ("activations", "gradients", "junctions", "parameters"):
        mine, theirs = getattr(run, table), getattr(expected, table)
        assert len(mine) == len(theirs) > 0
        for column in mine.select_dtypes("number"):
            assert list(mine[column]) == pytest.approx(
                list(theirs[column]), rel=tolerance, abs=1e-12, nan_ok=True
            ), (table, column)
    assert list(run.steps.scale) == [SCALE] * 4
    assert expected.steps.scale.isna().all()
    assert not run.steps.skipped.any()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_a_skipped_step_counts_and_is_marked_with_the_scale_it_had(tmp_path, fused, device):
    run, _ = train(tmp_path / "run", scaled=True, bad={1}, fused=fused, device=device)
    assert list(run.steps.step) == [0, 1, 2, 3]
    assert list(run.steps.skipped) == [False, True, False, False]
    assert list(run.steps.scale) == [SCALE, SCALE, SCALE / 2, SCALE / 2]
    gradients = run.gradients.groupby("step").nonfinite.sum()
    assert gradients[1] > 0
    assert gradients[[0, 2, 3]].sum() == 0
    # The scaler has mended it: that is not what went wrong with a run.
    assert "first_nonfinite" not in run.description
    updates = run.parameters[run.parameters.step == 1].update_norm
    assert (updates.isna() | (updates == 0)).all()


def test_two_tracers_on_one_scaler_step_aside_in_any_order(tmp_path):
    models = [network(), network()]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    tracers = [
        gradflow.Tracer(m, tmp_path / str(i), optimizer=o, scaler=scaler)
        for i, (m, o) in enumerate(zip(models, optimizers, strict=True))
    ]
    for tracer in tracers:
        tracer.__enter__()
    for step in range(2):
        for model, optimizer in zip(models, optimizers, strict=True):
            scaler.scale(model(torch.ones(2, 4)).sum() * (math.inf if step else 1)).backward()
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()
    for tracer in tracers:
        tracer.__exit__(None, None, None)
    for name in ("0", "1"):
        assert list(gradflow.open_run(tmp_path / name).steps.skipped) == [False, True]
    optimizers[0].zero_grad()
    scaler.scale(models[0](torch.ones(2, 4)).sum()).backward()
    scaler.step(optimizers[0])


def test_a_copied_scaler_has_its_own_step(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, scaler=scaler) as tracer:
        for other in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
            assert other.step.__self__ is other
            assert other.step.__func__ is torch.amp.GradScaler.step
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        tracer.end_epoch()


def test_a_scaler_without_an_optimizer_is_refused(tmp_path):
    with pytest.raises(TracingError, match="give the tracer both"):
        gradflow.Tracer(network(), tmp_path / "run", scaler=torch.amp.GradScaler("cpu"))
