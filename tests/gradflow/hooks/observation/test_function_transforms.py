"""torch.func runs a model on tensors of its own: those runs are left alone, others recorded."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

import gradflow


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, x):
        return x + torch.tanh(self.branch(x))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Block(), nn.Linear(4, 2))


def loss_of(model, parameters, x):
    return functional_call(model, parameters, (x,)).square().mean()


def per_sample_gradients(model, x):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return vmap(grad(lambda p, one: loss_of(model, p, one[None])), (None, 0))(parameters, x)


def jacobian(model, x):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return jacrev(lambda one: functional_call(model, parameters, (one,)))(x)


@pytest.mark.parametrize("transform", [per_sample_gradients, jacobian])
def test_transforms_beside_a_pass_change_nothing_in_what_is_recorded(tmp_path, transform):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    runs, results = [], []
    for name, transformed in (("plain", False), ("beside", True)):
        model = network()
        with gradflow.Tracer(model, tmp_path / name) as tracer:
            if transformed:
                results.append(transform(model, x))
            model(x).square().mean().backward()
            if transformed:
                transform(model, x)
            tracer.step()
            tracer.end_epoch()
        runs.append(gradflow.open_run(tmp_path / name))
    results.append(transform(network(), x))
    for table in ("layers", "activations", "gradients", "junctions", "parameters"):
        first, second = (run.table(table) for run in runs)
        assert first.equals(second), table
    assert len(runs[1].junctions) == 1
    torch.testing.assert_close(*results)


def test_training_by_per_sample_gradients_alone_goes_on_and_says_what_is_missing(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 3)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for step in range(3):
            samples = per_sample_gradients(model, x)
            for name, parameter in model.named_parameters():
                norms = samples[name].flatten(1).norm(dim=1).clamp(min=1)
                clipped = samples[name] / norms.view(-1, *[1] * parameter.dim())
                parameter.grad = clipped.mean(0)
            if step:
                optimizer.step()
            else:
                with pytest.warns(UserWarning, match="no layer was observed"):
                    optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.steps) == 3
    assert run.parameters[["gradient_norm", "update_norm"]].notna().all(axis=None)
