"""Gradients taken within a loss are no step of their own: cases beside tensor hooks by hand."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.errors import TracingError

STEPS = 3


def wgan_gp_critic():
    """SCIENCE.md's exact case: a linear critic with a gradient penalty, |w| known."""
    model = nn.Sequential(nn.Linear(4, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, -1.0, 2.0, 0.25]]))
    return model


def test_gradient_of_a_penalized_critic_is_that_of_its_loss_alone(tmp_path):
    torch.manual_seed(0)
    model = wgan_gp_critic()
    w = model[0].weight.detach().clone()
    x = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        y = model(x)
        (inner,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (y.mean() + 3 * (inner.norm(2, 1) - 1).square().mean()).backward()
        tracer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    # The penalty does not depend on y: dL/dy is 1/N each. Adding the inner pass's ones gives 2.85.
    assert run.gradients.norm.tolist() == pytest.approx([8**-0.5], rel=1e-10)
    expected = x.detach().mean(0) + 2 * 3 * (w.norm() - 1) * w[0] / w.norm()
    rows = run.parameters.set_index("parameter")
    assert rows.gradient_norm["0.weight"] == pytest.approx(float(expected.norm()), rel=1e-10)
    assert run.description["backward_passes"] == {"recorded": 1, "left_out": 1}


class Field(nn.Module):
    """A smooth network with a residual block, so that second derivatives pass a junction too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Linear(2, 8)
        self.block = nn.Linear(8, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        hidden = torch.tanh(self.lift(x))
        hidden = hidden + torch.tanh(self.block(hidden))
        return self.head(hidden)


def poisson(model, x):
    """The residual of u_xx + u_yy = 1, by double backward."""
    u = model(x)
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    second = sum(
        torch.autograd.grad(first[:, axis].sum(), x, create_graph=True)[0][:, axis]
        for axis in range(2)
    )
    return (second - 1).square().mean() + u.square().mean()


def penalty(model, x):
    y = model(x)
    (inner,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.mean() + (inner.norm(2, 1) - 1).square().mean()


def hessian_product(model, x):
    """The loss, and beside it g.Hg, which takes a pass over the parameters."""
    loss = model(x).square().mean()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    return loss + 0.1 * sum((g * g).sum() for g in gradients)


def inner_loop(model, x):
    """One step of an inner loop, differentiated through, as in meta-learning."""
    names = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        model(x).square().mean(), list(names.values()), create_graph=True
    )
    fast = {n: p - 0.1 * g for (n, p), g in zip(names.items(), gradients, strict=True)}
    hidden = torch.tanh(F.linear(x, fast["lift.weight"], fast["lift.bias"]))
    return hidden.square().mean()


def by_hand(loss_of, x):
    """The gradient at each layer's output in the pass that fills `.grad`, by a tensor hook."""
    model = Field().double()
    found, in_loss = {}, [True]

    def watch(name):
        def after(module, args, output):
            def note(gradient):
                if not in_loss[0]:
                    found[name] = found.get(name, 0) + gradient

            output.register_hook(note)

        return after

    for name in ("lift", "block", "head"):
        getattr(model, name).register_forward_hook(watch(name))
    loss = loss_of(model, x)
    in_loss[0] = False
    loss.backward()
    return {name: float(gradient.norm()) for name, gradient in found.items()}


@pytest.mark.parametrize("loss_of", [poisson, penalty, hessian_product, inner_loop])
def test_layer_gradients_are_those_of_the_pass_that_fills_grad(tmp_path, loss_of):
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_(True)
    expected = by_hand(loss_of, x)
    model = Field().double()
    x.grad = None
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        loss_of(model, x).backward()
        tracer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").gradients.set_index("layer").norm
    assert expected
    for name, value in expected.items():
        assert rows[name] == pytest.approx(value, rel=1e-9)


def test_residual_addition_is_split_by_that_pass_as_well(tmp_path):
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_(True)
    model = Field().double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        y = model(x)
        (inner,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        # Only y itself is in the loss: the penalty is left out, its pass has run all the same.
        (y.square().mean() + 0 * inner.sum()).backward()
        tracer.step()
        tracer.end_epoch()
    mixed = gradflow.open_run(tmp_path / "run").junctions
    plain = Field().double()
    with gradflow.Tracer(plain, tmp_path / "plain") as tracer:
        plain(x.detach().requires_grad_(True)).square().mean().backward()
        tracer.step()
        tracer.end_epoch()
    alone = gradflow.open_run(tmp_path / "plain").junctions
    assert len(mixed) == len(alone) == 1
    for column in ("gradient_norm", "skip_gradient_norm", "branch_gradient_norm", "skip_share"):
        assert mixed[column].tolist() == pytest.approx(alone[column].tolist(), rel=1e-9)


def test_optimizer_that_calls_backward_with_a_graph_fills_grad(tmp_path):
    """As second-order optimizers do: create_graph=True, and yet a step's own pass."""
    model = Field().double()
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        loss = model(x).square().mean()
        with warnings.catch_warnings():
            # torch says it once in a process, whichever test comes first.
            warnings.filterwarnings("ignore", ".*create_graph=True")
            loss.backward(create_graph=True)
        tracer.step()
        tracer.end_epoch()
    gradients = gradflow.open_run(tmp_path / "run").gradients.set_index("layer").norm
    expected = by_hand(lambda model, x: model(x).square().mean(), x)
    assert gradients.loc[list(expected)].tolist() == pytest.approx(
        list(expected.values()), rel=1e-9
    )
    for parameter in model.parameters():
        parameter.grad = None


def by_autograd_grad(model, x):
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model(x).square().mean(), parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(0.1 * gradient)


def test_loop_that_never_fills_grad_says_which_passes_count(tmp_path):
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = Field().double()
    with gradflow.Tracer(model, tmp_path / "run", passes="all") as tracer:
        by_autograd_grad(model, x)
        tracer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").gradients.set_index("layer").norm
    expected = by_hand(lambda model, x: model(x).square().mean(), x)
    assert rows.loc[list(expected)].tolist() == pytest.approx(list(expected.values()), rel=1e-9)


def test_without_saying_so_it_is_warned_of_once_and_goes_on(tmp_path):
    x = torch.randn(6, 2, dtype=torch.float64)
    model = Field().double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        by_autograd_grad(model, x)
        with pytest.warns(UserWarning, match=r'no gradient is recorded.*passes="all"'):
            tracer.step()
        for _ in range(STEPS - 1):  # another warning would be an error
            by_autograd_grad(model, x)
            tracer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert not len(run.gradients)
    assert len(run.activations) == STEPS * len(run.layers)
    assert run.description["backward_passes"] == {"recorded": 0, "left_out": STEPS}


def test_model_without_parameters_to_train_has_the_gradients_of_its_inputs(tmp_path):
    """As for adversarial inputs: nothing is trained, and what is asked for is dL/dx."""
    model = Field().double().requires_grad_(False)
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        torch.autograd.grad(model(x).square().mean(), x)
        tracer.step()
        tracer.end_epoch()
    assert set(gradflow.open_run(tmp_path / "run").gradients.layer) >= {"lift", "block", "head"}


def test_parameters_moved_while_it_trains_are_found_again(tmp_path):
    model = Field()
    x = torch.randn(6, 2)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for step in range(STEPS):
            if step == 1:
                model.double()
                x = x.double()
            model.zero_grad()
            # Only the head is asked for: the pass fills its gradient, and no other one.
            model(x).square().mean().backward(inputs=list(model.head.parameters()))
            tracer.step()
        tracer.end_epoch()
    steps = gradflow.open_run(tmp_path / "run").gradients.groupby("layer").step.nunique()
    assert steps["head"] == STEPS


def test_another_word_is_refused(tmp_path):
    with pytest.raises(TracingError, match="passes= is"):
        gradflow.Tracer(Field(), tmp_path / "run", passes="some")
    assert math.isclose(math.sqrt(8 + 1 / 8), 2.8504, abs_tol=1e-4)
