"""Whatever a loop does with the tracer, what was recorded is kept, and nothing is left behind."""

import json

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import GradflowError, TracingError
from gradflow.hooks.reduction.deferred import reductions as deferred


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(x + torch.relu(self.first(x)))


def model_and_optimizers():
    torch.manual_seed(0)
    model = Block()
    first = torch.optim.SGD(model.first.parameters(), lr=0.1)
    return model, first, torch.optim.SGD(model.second.parameters(), lr=0.1)


def batch(step):
    return torch.randn(step + 2, 4, generator=torch.Generator().manual_seed(step))


def run_of(folder):
    return gradflow.open_run(folder)


def sizes(run):
    """The batch size of each recorded step."""
    return dict(zip(run.activations.step, run.activations.batch_size, strict=True))


def test_a_step_that_ends_while_paused_is_recorded_and_the_next_too(tmp_path):
    """Optimizers take turns; a forward pass within the pause ends the step of the first."""
    model, first, second = model_and_optimizers()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=[first, second]) as tracer:
        for step in range(4):
            model(batch(step)).sum().backward()
            (first, second)[step % 2].step()
            model.zero_grad()
            if step == 1:
                with tracer.paused():
                    model(batch(9))
    run = run_of(tmp_path / "run")
    assert sizes(run) == {0: 2, 1: 3, 2: 4, 3: 5}


def test_an_optimizer_that_steps_while_paused_ends_the_step(tmp_path):
    model, first, _ = model_and_optimizers()
    options = {"optimizer": first, "schedule": 2}
    with gradflow.Tracer(model, tmp_path / "run", **options) as tracer:
        for step in range(5):
            model(batch(step)).sum().backward()
            with tracer.paused():
                first.step()
            model.zero_grad()
    run = run_of(tmp_path / "run")
    assert sizes(run) == {0: 2, 2: 4, 4: 6}
    assert run.parameters.query("parameter == 'first.weight'").update_norm.gt(0).all()


def test_a_skipped_step_after_one_that_has_begun_leaves_that_as_it_was(tmp_path):
    model, first, second = model_and_optimizers()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=[first, second]) as tracer:
        model(batch(0)).sum().backward()
        first.step()
        tracer.skip_step()
        model(batch(1)).sum().backward()
        first.step()
        second.step()
        assert tracer.steps == 3
    run = run_of(tmp_path / "run")
    assert list(run.steps.skipped) == [False, True, False]
    weights = run.parameters.query("parameter == 'first.weight'").set_index("step")
    assert weights.update_norm[0] > 0
    assert weights.update_norm[2] > 0


def test_an_optimizer_followed_before_the_tracer_is_entered_ends_its_steps_once(tmp_path):
    model, first, second = model_and_optimizers()
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=first)
    tracer.use_optimizer(second)
    with tracer:
        for step in range(2):
            model(batch(step)).sum().backward()
            second.step()
        assert tracer.steps == 2


@pytest.mark.parametrize("call", [gradflow.Tracer.step, gradflow.Tracer.skip_step])
def test_steps_of_a_tracer_that_was_left_are_refused_and_nothing_is_put_back(tmp_path, call):
    model, _, _ = model_and_optimizers()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(batch(0)).sum().backward()
        tracer.step()
    with pytest.raises(TracingError, match="the tracer is not running"):
        call(tracer)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_strict_error_of_a_step_keeps_the_steps_before_it(tmp_path):
    """No layer is observed in step 0; its parameters are recorded all the same."""
    model, first, _ = model_and_optimizers()

    def train():
        with gradflow.Tracer(model.eval(), tmp_path / "run", optimizer=first, strict=True):
            model(batch(0)).sum().backward()
            first.step()

    with pytest.raises(TracingError, match="no layer was observed"):
        train()
    run = run_of(tmp_path / "run")
    assert list(run.steps.step) == [0]
    assert len(run.parameters) == 4
    assert run.description["status"] == "failed"


def test_a_strict_error_as_the_tracer_is_left_keeps_what_was_recorded(tmp_path):
    """The second of two optimizers has not stepped: leaving the tracer ends the step."""
    model, first, second = model_and_optimizers()

    def train():
        options = {"optimizer": [first, second], "strict": True}
        with gradflow.Tracer(model.eval(), tmp_path / "run", **options):
            model(batch(0)).sum().backward()
            first.step()

    with pytest.raises(TracingError, match="no layer was observed"):
        train()
    assert list(run_of(tmp_path / "run").steps.step) == [0]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_state_that_cannot_be_read_leaves_the_folder_free(tmp_path):
    model, first, _ = model_and_optimizers()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=first) as tracer:
        model(batch(0)).sum().backward()
        first.step()
        tracer.end_epoch()
        state = tracer.state_dict()
    bad = {**state, "memory": {"layers": 3}}
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=first, resume=bad)
    with pytest.raises(GradflowError, match="state"):
        tracer.__enter__()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=first, resume=state) as again:
        assert again.steps == 1
    assert tracer is not again  # the first is alive until here, and holds no lock


def test_what_was_said_before_an_interruption_is_still_there_after_it(tmp_path):
    model, first, _ = model_and_optimizers()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=first) as tracer:
        with pytest.warns(UserWarning, match="epoch 1 has no steps"):
            tracer.end_epoch()
        model(batch(0)).sum().backward()
        first.step()
        tracer.end_epoch()
        state = tracer.state_dict()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=first, resume=state) as tracer:
        for step in range(2):
            model(batch(step)).sum().backward()
            first.step()
        tracer.end_epoch()
    description = run_of(tmp_path / "run").description
    assert [said.split(",")[0] for said in description["not_recorded"]] == ["epoch 1 has no steps"]
    assert description["backward_passes"] == {"recorded": 3, "left_out": 0}


class Breaks(nn.Module):
    def forward(self, x):
        raise ZeroDivisionError


def test_the_error_of_a_device_that_fails_is_not_hidden_by_reading_what_waits(
    tmp_path, monkeypatch
):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)
    with pytest.raises(ZeroDivisionError), tracer:  # noqa: PT012 - at the end, and it leaves
        for _ in range(3):
            model(batch(0)).sum().backward()
            optimizer.step()
        tracer.end_epoch()
        model.append(Breaks())
        monkeypatch.setattr(deferred, "reduce_small", lambda items: batch(0) @ batch(0))
        model(batch(0))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert sizes(run_of(tmp_path / "run")) == {0: 2, 1: 2, 2: 2}
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
