"""Optimizers that take turns: the forward pass that ends one step is recorded whole in the next."""

import pytest
import torch
from torch import nn

import gradflow


class Adding(nn.Module):
    """A residual addition in the model's own forward."""

    def __init__(self):
        super().__init__()
        self.given, self.branch, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.fails = False

    def forward(self, x):
        skip = self.given(x)
        added = skip + torch.relu(self.branch(skip))
        if self.fails:
            raise ValueError("out of memory")
        return self.last(added)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Adding()


@pytest.fixture
def optimizers(model):
    first = torch.optim.SGD(model.branch.parameters(), lr=0.1)
    return first, torch.optim.SGD([*model.given.parameters(), *model.last.parameters()], lr=0.1)


def as_it_is(model):
    return model


def compiled(model):
    return torch.compile(model, backend="eager")


def by_autograd(model, x):
    """The norms of the gradients at the addition: at its skip, and at both uses of the skip."""
    twin = Adding()
    twin.load_state_dict(model.state_dict())
    skip = twin.given(x)
    added = skip + torch.relu(twin.branch(skip))
    gradients = torch.autograd.grad(twin.last(added).square().sum(), (added, skip))
    return tuple(float(one.norm()) for one in gradients)


def train(model, optimizers, step, called=None):
    """Train one step; return the norms of `by_autograd`."""
    model.zero_grad()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
    expected = by_autograd(model, x)
    (model if called is None else called)(x).square().sum().backward()
    optimizers[step % 2].step()
    return expected


@pytest.mark.parametrize("wrap", [as_it_is, compiled])
@pytest.mark.parametrize("wanted", [(0, 2, 4), (1, 3), (1, 2, 4)])
def test_additions_are_recorded_in_each_step_that_is_due(tmp_path, model, optimizers, wanted, wrap):
    called = wrap(model)
    with gradflow.Tracer(
        called, tmp_path / "run", optimizer=optimizers, schedule=lambda step: step in wanted
    ) as tracer:
        expected = [train(model, optimizers, step, called=called) for step in range(6)]
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert run.junctions.step.tolist() == list(wanted)
    norms = list(zip(run.junctions.skip_gradient_norm, run.junctions.gradient_norm, strict=True))
    for step, found in zip(wanted, norms, strict=True):
        assert found == pytest.approx(expected[step], rel=1e-5), step
    assert run.gradients.query("layer == 'given'").step.tolist() == list(wanted)


def test_a_forward_pass_that_ends_a_step_and_fails_is_left_out(tmp_path, model, optimizers):
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizers, schedule=lambda step: step == 1
    ) as tracer:
        train(model, optimizers, 0)
        model.fails = True
        with pytest.raises(ValueError, match="out of memory"):
            model(torch.randn(100, 8))
        model.fails = False
        train(model, optimizers, 1)
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").activations
    assert rows[["layer", "batch_size"]].to_numpy().tolist() == [
        ["given", 4],
        ["branch", 4],
        ["last", 4],
    ]


def test_a_module_that_came_before_the_step_is_observed_in_it(tmp_path, model, optimizers):
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizers, schedule=lambda step: step == 1
    ) as tracer:
        train(model, optimizers, 0)
        model.last = nn.Sequential(model.last, nn.Linear(1, 1))
        model(torch.randn(4, 8)).sum().backward()
        optimizers[1].step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert run.activations.layer.tolist() == ["given", "branch", "last.0", "last.1"]
    assert run.description["model_changes"][0]["layers_added"] == ["last.0", "last.1"]


def test_hooks_of_the_training_run_once_in_the_pass_that_ends_a_step(tmp_path, model, optimizers):
    calls = []
    model.register_forward_pre_hook(lambda *args: calls.append("plain"))
    model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append("with kwargs"), with_kwargs=True
    )
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizers, schedule=2) as tracer:
        for step in range(3):
            train(model, optimizers, step)
        tracer.end_epoch()
    assert calls == ["plain", "with kwargs"] * 3
