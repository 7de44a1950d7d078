"""A user's own loop resumes a run, with weights and tracer state loaded from a file."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import RunError
from gradflow.hooks.selection.schedules import Budget

STEPS, EPOCHS = 5, 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, x):
        return x + self.inner(x)


def make_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Block(), nn.Linear(6, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(folder, *, until, resume_from=None, schedule=2):
    """Train up to the end of epoch `until`, saving everything; resume from a file if given."""
    model, optimizer = make_model()
    saved = torch.load(resume_from, weights_only=True) if resume_from else None
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
    tracer = gradflow.Tracer(
        model,
        folder,
        optimizer=optimizer,
        schedule=schedule,
        resume=saved["tracer"] if saved else None,
    )
    with tracer:
        for epoch in range(tracer.epoch, until + 1):
            for step in range(STEPS):
                generator = torch.Generator().manual_seed(100 * epoch + step)
                inputs = torch.randn(7, 6, generator=generator)
                optimizer.zero_grad()
                model(inputs).square().mean().backward()
                optimizer.step()
            tracer.end_epoch(train_loss=float(epoch))
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "tracer": tracer.state_dict(),
            }
            torch.save(state, folder.parent / f"{folder.name}-{epoch}.pt")
    return model


TABLES = (
    "layers",
    "epochs",
    "activations",
    "gradients",
    "parameters",
    "junctions",
    "steps",
    "modes",
)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_rows_and_weights_are_those_of_a_run_without_interruption(tmp_path, after):
    whole = train(tmp_path / "whole", until=EPOCHS)
    train(tmp_path / "parted", until=EPOCHS - 1)
    resumed = train(tmp_path / "parted", until=EPOCHS, resume_from=tmp_path / f"parted-{after}.pt")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])
    first, second = (gradflow.open_run(tmp_path / name) for name in ("whole", "parted"))
    for name in TABLES:
        pd.testing.assert_frame_equal(first.table(name), second.table(name), check_exact=True)
    # Every 2nd of 5 steps: the first one of epoch 2 is compared with one of epoch 1.
    cosines = second.parameters.set_index("step").gradient_cosine
    assert cosines.loc[STEPS + 1].notna().all()
    for entry in ("residual_additions", "not_observed", "status"):
        assert first.description[entry] == second.description[entry]


def test_an_empty_state_starts_the_run_over(tmp_path):
    train(tmp_path / "run", until=2)
    model, optimizer = make_model()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, resume={}) as tracer:
        model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert run.epochs.epoch.tolist() == [1]
    assert set(run.gradients.step) == {0}


def test_a_resumed_budget_keeps_its_measurements(tmp_path):
    train(tmp_path / "run", until=2, schedule=Budget(0.5))
    budget = Budget(0.5)
    train(tmp_path / "run", until=3, resume_from=tmp_path / "run-2.pt", schedule=budget)
    assert budget.summary()["steps"] == 3 * STEPS


@pytest.mark.parametrize("passes", [0, 1], ids=["between-steps", "within-a-step"])
@pytest.mark.parametrize("at", [1, 7, 10])
def test_a_state_within_an_epoch_continues_it(tmp_path, at, passes):
    """Steps 0 to 4 are epoch 1. A step under way is recorded anew from its beginning."""

    def steps(tracer, model, optimizer, first, last=12):
        for step in range(first, last):
            torch.manual_seed(step)
            model(torch.randn(7, 6)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step in {4, 9}:
                tracer.end_epoch(last=float(step))

    for name in ("whole", "parted"):
        model, optimizer = make_model()
        with gradflow.Tracer(model, tmp_path / name, optimizer=optimizer) as tracer:
            steps(tracer, model, optimizer, 0, at)
            for _ in range(passes if name == "parted" else 0):
                model(torch.randn(7, 6)).sum().backward()
            state = tracer.state_dict()
            # What the state counts on is on the disk, should the process be killed.
            assert set(gradflow.open_run(tmp_path / name).steps.step) == set(range(at))
            optimizer.zero_grad()
            weights = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            steps(tracer, model, optimizer, at, 12 if name == "whole" else 11)
    model, optimizer = make_model()
    model.load_state_dict(weights[0])
    optimizer.load_state_dict(weights[1])
    folder = tmp_path / "parted"
    with gradflow.Tracer(model, folder, optimizer=optimizer, resume=state) as tracer:
        assert tracer.epoch_start == at - at % 5
        steps(tracer, model, optimizer, at)
    whole, parted = (gradflow.open_run(tmp_path / name) for name in ("whole", "parted"))
    for name in TABLES:
        pd.testing.assert_frame_equal(parted.table(name), whole.table(name), check_exact=True)


def test_a_run_that_does_not_exist_cannot_be_resumed(tmp_path):
    model, optimizer = make_model()
    tracer = gradflow.Tracer(model, tmp_path / "none", optimizer=optimizer, resume={})
    with pytest.raises(RunError, match="there is no folder"), tracer:
        pass


def test_a_step_without_an_update_is_counted_and_marked(tmp_path):
    model, optimizer = make_model()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for skipped in (False, True, False):
            optimizer.zero_grad()
            model(torch.ones(2, 6)).sum().backward()
            tracer.skip_step() if skipped else optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert run.steps.skipped.tolist() == [False, True, False]
    updates = run.parameters.groupby("step").update_norm.apply(lambda norms: norms.notna().any())
    assert updates.tolist() == [True, False, True]
