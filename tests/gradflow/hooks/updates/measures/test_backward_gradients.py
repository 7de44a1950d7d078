"""Gradients that are gone by the time of the step are read as they arrive."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.autograd import Variable

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.reduction import cpu
from gradflow.hooks.updates.measures import backward_gradients


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def gradients_beside(model, x):
    """The norms of the gradients that a backward pass of a copy of `model` leaves."""
    twin = copy.deepcopy(model)
    twin(x).square().mean().backward()
    return {name: float(one.grad.norm()) for name, one in twin.named_parameters()}


@torch.no_grad()
def descend(parameter):
    parameter.sub_(parameter.grad, alpha=0.1)
    parameter.grad = None


def update_in_hooks(model):
    """An update of each parameter as soon as its gradient is there."""
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(descend)


def update_in_the_next_hook(model):
    """LOMO: each gradient that arrives makes room by the update of those before it."""

    def earlier(gradient):
        for parameter in model.parameters():
            if parameter.grad is not None:
                descend(parameter)
        return gradient

    for parameter in model.parameters():
        parameter.register_hook(earlier)


@pytest.mark.parametrize("update", [update_in_hooks, update_in_the_next_hook])
@pytest.mark.parametrize("schedule", [1, 2])
def test_updates_in_hooks_have_their_gradients_recorded(tmp_path, update, schedule):
    model, expected = network(), []
    update(model)
    with gradflow.Tracer(model, tmp_path / "run", schedule=schedule) as tracer:
        for x in batches(4):
            expected.append(gradients_beside(model, x))
            model(x).square().mean().backward()
            for parameter in model.parameters():
                if parameter.grad is not None:  # LOMO's last one
                    descend(parameter)
            tracer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    rows = run.parameters.set_index(["step", "parameter"])
    for step in range(0, 4, schedule):
        for column in ("backward_gradient_norm", "gradient_norm"):
            assert rows.loc[step][column].to_dict() == pytest.approx(expected[step], rel=1e-9)
        updates = {name: 0.1 * norm for name, norm in expected[step].items()}
        assert rows.loc[step].update_norm.to_dict() == pytest.approx(updates, rel=1e-9)
    assert "not_recorded" not in run.description


def test_a_hook_of_an_optimizer_that_clips_shows_what_was_there_before(tmp_path):
    model, received = network(), []
    optimizers = {one: torch.optim.SGD([one], lr=0.1) for one in model.parameters()}

    def step(parameter):
        nn.utils.clip_grad_norm_([parameter], 1e-3)
        received.append(float(parameter.grad.norm()))
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    expected = []
    with gradflow.Tracer(model, tmp_path / "run", optimizer=list(optimizers.values())) as tracer:
        for x in batches(3):
            expected.append(gradients_beside(model, x))
            model(x).square().mean().backward()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    assert sorted(rows.gradient_norm) == pytest.approx(sorted(received), rel=1e-9)
    for step, norms in enumerate(expected):
        assert rows.loc[step].backward_gradient_norm.to_dict() == pytest.approx(norms, rel=1e-9)
    assert (rows.clipping_factor < 0.9).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_an_optimizer_that_only_stands_for_updates_in_hooks(tmp_path, parts):
    """As the layer-wise optimizers of Hugging Face's Trainer: its own step does nothing."""

    class Dummy(torch.optim.SGD):
        def step(self, closure=None):
            return None

    model, expected, moved, weights = network(), [], [], []
    update_in_hooks(model)
    optimizer = Dummy(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            before = {name: one.detach().clone() for name, one in model.named_parameters()}
            weights.append({name: float(one.norm()) for name, one in before.items()})
            for _ in range(parts):
                last = gradients_beside(model, x)
                model(x).square().mean().backward()
            expected.append(last)
            moved.append(
                {n: float((one.detach() - before[n]).norm()) for n, one in model.named_parameters()}
            )
            optimizer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    for step in range(3):
        mine = rows.loc[step]
        assert mine.gradient_norm.to_dict() == pytest.approx(expected[step], rel=1e-9)
        assert mine.weight_norm.to_dict() == pytest.approx(weights[step], rel=1e-9)
        assert mine.update_norm.to_dict() == pytest.approx(moved[step], rel=1e-9)


class LettingGo(torch.autograd.Function):
    """Updates the layers behind it and lets go of their gradients, without a hook on them."""

    @staticmethod
    def forward(ctx, x, update):
        ctx.update = update
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.update()
        return gradient, None


class Sweeping(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4).double()
        self.layers = network()

    def forward(self, x):
        return self.layers(LettingGo.apply(self.first(x), self.update))

    def update(self):
        for parameter in self.layers.parameters():
            descend(parameter)


def test_gradients_that_went_unseen_are_caught_from_the_next_step_on(tmp_path):
    model = Sweeping()
    model.first.requires_grad_(False)
    model.first.bias.requires_grad_(True)  # so that the pass gets there
    model.first.bias.register_post_accumulate_grad_hook(descend)
    expected, names = [], [f"layers.{name}" for name, _ in model.layers.named_parameters()]
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for x in batches(3):
            with torch.no_grad():
                inner = model.first(x)
            expected.append(gradients_beside(model.layers, inner))
            model(x).square().mean().backward()
            tracer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    assert rows.loc[0].gradient_norm[names].isna().all()
    for step in (1, 2):
        found = rows.loc[step].gradient_norm[names].to_dict()
        assert found == pytest.approx(
            {f"layers.{name}": norm for name, norm in expected[step].items()}, rel=1e-9
        )


@pytest.mark.parametrize("strict", [False, True])
def test_a_pass_that_leaves_no_gradient_at_all_is_said_once(tmp_path, strict):
    model = network()

    def update_all():
        for parameter in model.parameters():
            descend(parameter)

    def train():
        with gradflow.Tracer(model, tmp_path / "run", strict=strict) as tracer:
            for x in batches(3):
                loss = model(x).square().mean()
                loss.register_hook(lambda _: Variable._execution_engine.queue_callback(update_all))
                loss.backward()
                tracer.step()
            tracer.end_epoch()

    if strict:
        with pytest.raises(TracingError, match="read as they arrive"):
            train()
        return
    with pytest.warns(UserWarning, match="step 0 has no gradients of parameters") as said:
        train()
    assert len(said) == 1
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.description["not_recorded"]) == 1
    rows = run.parameters.set_index("step")
    assert rows.gradient_norm[0].isna().all()
    assert rows.gradient_norm[[1, 2]].notna().all()
    assert (rows.update_norm > 0).all()


def test_hooks_come_off_and_those_of_the_user_keep_their_order(tmp_path):
    model, order = network(), []
    weight = model[0].weight
    weight.register_post_accumulate_grad_hook(lambda p: order.append("first"))
    weight.register_post_accumulate_grad_hook(lambda p: order.append("second"))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(batches(1)[0]).sum().backward()
        assert len(weight._post_accumulate_grad_hooks) == 3
        tracer.step()
    assert len(weight._post_accumulate_grad_hooks) == 2
    model(batches(1)[0]).sum().backward()
    assert order == ["first", "second"] * 2


@pytest.mark.parametrize("hooked", [False, True])
def test_a_paused_pass_counts_as_added_whether_gradients_are_read_as_they_arrive_or_not(
    tmp_path, hooked
):
    model, x = network(), batches(1)[0]
    if hooked:
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(lambda parameter: None)
    left = gradients_beside(model, x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        model(x).square().mean().backward()
        with tracer.paused():
            model(x).square().mean().backward()
        optimizer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index("parameter")
    assert rows.backward_gradient_norm.to_dict() == pytest.approx(left, rel=1e-9)
    assert rows.clipping_factor.tolist() == pytest.approx([2.0] * len(rows), rel=1e-9)


def test_steps_that_are_not_recorded_have_no_hooks_on_parameters(tmp_path):
    """Those of parameters that a pass left without a gradient, and of those with hooks."""
    model, hooks, expected = network(), [], []
    model[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=2) as tracer:
        for x in batches(4):
            model[2](torch.ones(2, 6, dtype=torch.float64)).sum().backward()
            optimizer.zero_grad()
            expected.append(gradients_beside(model, x))
            model(x).square().mean().backward()
            hooks.append([len(one._post_accumulate_grad_hooks or ()) for one in model.parameters()])
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    assert hooks[1] == hooks[3] == [1, 0, 0, 0]
    assert hooks[2][0] == 2
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    for step in (0, 2):
        found = rows.loc[step].backward_gradient_norm.to_dict()
        assert found == pytest.approx(expected[step], rel=1e-9)


def test_hooks_that_take_gradients_from_a_later_step_on(tmp_path):
    model, expected = network(), []
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for step, x in enumerate(batches(3)):
            if step == 1:
                update_in_hooks(model)
            expected.append(gradients_beside(model, x))
            model(x).square().mean().backward()
            tracer.step()
            model.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    for step in range(3):
        found = rows.loc[step].backward_gradient_norm.to_dict()
        assert found == pytest.approx(expected[step], rel=1e-9)


def test_where_there_is_never_a_gradient_weights_and_updates_are_recorded(tmp_path):
    """Evolution strategies: only forward passes, and weights that move."""
    model, moved = network(), []
    with gradflow.Tracer(model, tmp_path / "run", schedule=2) as tracer:
        for x in batches(4):
            with torch.no_grad():
                before = [one.clone() for one in model.parameters()]
                for one in model.parameters():
                    one.add_(torch.randn_like(one), alpha=0.01 * float(model(x).mean().abs()))
                moved.append(
                    [
                        float((new - old).norm())
                        for new, old in zip(model.parameters(), before, strict=True)
                    ]
                )
            with (
                pytest.warns(UserWarning, match="no layer") if tracer.steps == 0 else nullcontext()
            ):
                tracer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters
    for step in (0, 2):
        found = rows[rows.step == step].update_norm.tolist()
        assert found == pytest.approx(moved[step], rel=1e-9)
    assert rows.weight_norm.notna().all()
    assert rows[["gradient_norm", "backward_gradient_norm"]].isna().all(axis=None)


def test_grouped_norms_are_those_one_by_one(monkeypatch):
    """As on a device without the compiled loops: one call for all tensors of a kind."""
    torch.manual_seed(0)
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    tensors = [torch.randn(place + 1, 3).to(kinds[place % 4]) for place in range(12)]
    tensors += [torch.zeros(0), torch.full((3,), 1e-30), torch.tensor([float("inf"), 1.0])]
    expected = [float(one.double().norm()) for one in tensors]
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    found = backward_gradients.norms_of(tensors)
    assert [float(one) for one in found] == pytest.approx(expected, rel=1e-12)
