"""Passes that fail with an exception leave no rows behind."""

import pytest
import torch
from torch import nn

import gradflow


class Fails(nn.Module):
    """Raises in forward or in backward when told to."""

    def __init__(self):
        super().__init__()
        self.when = None

    def forward(self, x):
        if self.when == "forward":
            raise ZeroDivisionError
        if self.when == "backward":
            x = x.clone()
            x.register_hook(self.fail)
        return x

    def fail(self, _):
        raise ZeroDivisionError


def batch(step):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_step_after_a_failure_reads_as_if_there_had_been_none(tmp_path, when):
    runs = []
    for failing in (False, True):
        torch.manual_seed(0)
        fails = Fails()
        model = nn.Sequential(nn.Linear(3, 3), fails, nn.Linear(3, 3), nn.ReLU()).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        folder = tmp_path / f"{failing}"
        with gradflow.Tracer(model, folder, optimizer=optimizer):
            for step in range(3):
                if failing:
                    fails.when = when
                    with pytest.raises(ZeroDivisionError):
                        model(batch(50)).square().sum().backward()
                    fails.when = None
                    optimizer.zero_grad()
                model(batch(step)).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        runs.append(gradflow.open_run(folder))
    plain, failed = runs
    assert list(failed.gradients.norm) == pytest.approx(list(plain.gradients.norm), rel=1e-12)
    assert set(failed.gradients.batch_size) == {4}
    if when == "forward":
        assert list(failed.activations.norm) == pytest.approx(list(plain.activations.norm))
    else:
        # The failed pass did run forward: its outputs are part of the step.
        assert set(failed.activations.batch_size) == {8}


def test_a_failed_forward_pass_that_ends_its_step_leaves_no_rows(tmp_path):
    fails = Fails()
    model = nn.Sequential(nn.Linear(3, 3), fails)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.ones(2, 3)).sum().backward()
        tracer.step()
        fails.when = "forward"
        with pytest.raises(ZeroDivisionError):
            model(torch.ones(2, 3))
        tracer.step()
    assert list(gradflow.open_run(tmp_path / "run").activations.step) == [0]


@pytest.mark.parametrize("modes", ["training", "all"])
@pytest.mark.parametrize("is_residual", [False, True])
def test_a_backward_pass_counts_that_runs_after_the_failure_of_another_forward_pass(
    tmp_path, is_residual, modes
):
    torch.manual_seed(0)
    fails = Fails()
    inner = nn.Sequential(nn.Linear(3, 3), fails, nn.Linear(3, 3)).double()
    model = nn.Sequential(nn.Linear(3, 3).double(), Plus(inner) if is_residual else inner)
    model.train(modes == "training")
    folder, expected = tmp_path / "run", []
    with gradflow.Tracer(model, folder, modes=modes) as tracer:
        for _ in range(3):
            model.zero_grad()
            outputs = [model(batch(0))]
            outputs[0].square().sum().backward()
            outputs.append(model(batch(1)))
            fails.when = "forward"
            with pytest.raises(ZeroDivisionError):
                model(batch(2))
            fails.when = None
            outputs[1].square().sum().backward()
            outputs.append(model(batch(3)))
            outputs[2].square().sum().backward()
            expected.append(2 * float(torch.cat(outputs).detach().norm()))  # d(y^2)/dy = 2 y
            tracer.step()
    run = gradflow.open_run(folder)
    last = run.gradients[run.gradients.layer == ("1" if is_residual else "1.2")]
    assert [*last.norm] == pytest.approx(expected)
    assert set(run.gradients.batch_size) == set(run.activations.batch_size) == {12}
    if is_residual:
        assert [*run.junctions.skip_gradient_norm] == pytest.approx(expected)


class Plus(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Prompt(nn.Module):
    """Hands its parameter through as it is, as a learned prompt does."""

    def __init__(self):
        super().__init__()
        self.prompt = nn.Parameter(torch.ones(2, 3))

    def forward(self, _):
        return self.prompt


def test_a_parameter_handed_through_as_an_output_keeps_no_hook(tmp_path):
    model = nn.Sequential(Prompt(), nn.Linear(3, 1, bias=False)).double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(3):
            model.zero_grad()
            model(None).sum().backward()
            tracer.step()
    assert not model[0].prompt._backward_hooks
    gradients = gradflow.open_run(tmp_path / "run").gradients
    expected = float(model[0].prompt.grad.norm())
    assert list(gradients[gradients.layer == "0"].norm) == pytest.approx([expected] * 3)
