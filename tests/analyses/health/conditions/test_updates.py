"""Why weights hardly move: each training has the one cause that it was given."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import read_health
from analyses.health.question import all_findings
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


def test_an_open_verdict_says_why_and_names_a_rate_that_became_zero(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=1) as tracer:
        for step in range(24):
            optimizer.param_groups[0]["lr"] = 0.05 if step < 9 else 0.0
            F.cross_entropy(model(torch.randn(32, 6)), torch.randint(0, 3, (32,))).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    found = {one.topic: one for one in all_findings(gradflow.open_experiment(tmp_path / "run"))}
    one = found["stalled"]
    assert one.verdict is Verdict.INCONCLUSIVE
    why = "from step 9 on the learning rate is 0. See whether its schedule ends there."
    assert one.meaning.endswith(why)
    assert not any(why in caveat for caveat in one.caveats)  # told once


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


def test_gradients_zeroed_before_the_step_are_told_apart_from_clipping(tmp_path):
    """Clipping scales a gradient; of one that is not 0 it leaves something."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    inputs, targets = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(10):
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.zero_grad(set_to_none=False)
            optimizer.step()
        tracer.end_epoch()
    found = {one.condition: one for one in read_health(gradflow.open_run(tmp_path / "run"))}
    assert found["clipped"].verdict is Verdict.SUPPORTED
    assert "zero_grad()" in found["clipped"].cause
    assert "before backward(), or after step()" in found["clipped"].next_step


def test_low_rank_adapters_that_begin_at_zero_do_not_hide_clipping(tmp_path):
    """Such a weight moves by much of its own norm, however little is left of the gradient."""
    torch.manual_seed(0)
    down, up = nn.Linear(6, 2, bias=False), nn.Linear(2, 3, bias=False)
    nn.init.zeros_(up.weight)
    model = nn.Sequential(down, up)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=1) as tracer:
        for _ in range(20):
            F.cross_entropy(model(torch.randn(32, 6)), torch.randint(0, 3, (32,))).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    found = {one.condition: one for one in read_health(run)}["clipped"]
    moves = run.parameters.set_index("parameter")["update_to_weight"].groupby("parameter").median()
    assert moves["1.weight"] > 1e-2
    assert moves["0.weight"] < 1e-6
    assert found.verdict is Verdict.SUPPORTED


def test_clipping_that_the_optimizer_makes_up_for_is_left_open(readings):
    """Adam divides by the size of the gradient; the weights move as they do without clipping."""
    found = readings(clip=1e-5, make=torch.optim.Adam)
    assert found["clipped"].value < 1e-3
    assert found["clipped"].verdict is Verdict.INCONCLUSIVE
    assert "Yet weights move by" in found["clipped"].note
    assert found["stalled"].verdict is Verdict.CONTRADICTED


def test_gradients_unscaled_by_a_scaler_that_the_tracer_does_not_have_are_not_ill(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    inputs, targets = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu")
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(10):
            scaler.scale(F.cross_entropy(model(inputs), targets)).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        tracer.end_epoch()
    found = {one.condition: one for one in read_health(gradflow.open_run(tmp_path / "run"))}
    assert found["clipped"].value == 2.0**-16
    assert found["clipped"].verdict is Verdict.INCONCLUSIVE
    assert "scaler=" in found["clipped"].next_step
    experiment = gradflow.open_experiment(tmp_path / "run")
    told = next(one for one in all_findings(experiment) if one.topic == "clipped")
    assert told.next_step == found["clipped"].next_step


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x, both):
        h = self.body(x).relu()
        return self.head(h) + self.other(h) if both else self.head(h)


def test_a_head_that_has_its_turn_at_every_fifth_step_is_not_stalled(tmp_path):
    torch.manual_seed(0)
    model, inputs, targets = TwoHeads(), torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for step in range(40):
            F.cross_entropy(model(inputs, both=step % 5 == 4), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    updates = run.parameters.query("parameter == 'other.weight'").update_to_weight
    assert (updates == 0).sum() == 32
    found = {one.condition: one for one in read_health(run)}["stalled"]
    assert found.verdict is Verdict.CONTRADICTED
    assert found.value > 1e-4


def test_an_optimizer_that_waits_for_another_one_is_not_stalled(tmp_path):
    """WGAN: five steps of the critic for each one of the generator, which gets gradients in all."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"generator": nn.Linear(4, 6), "critic": nn.Linear(6, 1)})
    slow = torch.optim.SGD(model["generator"].parameters(), lr=0.05)
    often = torch.optim.SGD(model["critic"].parameters(), lr=0.05)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=[slow, often]) as tracer:
        for step in range(60):
            tracer.begin_pass()
            (model["critic"](model["generator"](torch.randn(16, 4))) ** 2).mean().backward()
            (slow if step % 6 == 5 else often).step()
            model.zero_grad()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    rows = run.parameters.query("parameter == 'generator.weight'")
    assert (rows.update_norm == 0).sum() == 50
    assert (rows.gradient_norm > 0).all()
    found = {one.condition: one for one in read_health(run)}["stalled"]
    assert found.verdict is Verdict.CONTRADICTED
    assert found.value > 1e-6


def test_no_cause_is_named_where_weights_move(readings):
    assert readings()["stalled"].cause == ""


@pytest.mark.parametrize(("rises", "verdict"), [(False, "supported"), (True, "inconclusive")])
def test_updates_that_were_zero_are_a_warm_up_only_if_the_rate_rises(tmp_path, rises, verdict):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for step in range(24):
            begun = step > 12
            optimizer.param_groups[0]["lr"] = 1e-7 if begun or not rises else 0.0
            share = 1.0 if begun or rises else 0.0  # of the loss: without it no gradient
            (share * model(torch.randn(32, 6)).square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    found = {one.condition: one for one in read_health(gradflow.open_run(tmp_path / "run"))}
    assert found["stalled"].early_value == 0
    assert found["stalled"].verdict == verdict


def test_a_norm_that_overflows_is_no_clipping(readings):
    found = readings(rate=1e-30, clip=1.0, loss_scale=1e25)
    assert found.get("clipped") is None or found["clipped"].verdict is not Verdict.SUPPORTED
    assert "zero_grad" not in "".join(one.cause for one in found.values())
