from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.cuda import groups as on_device
from gradflow.hooks.reduction.deferred import reductions as deferred
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, Habit
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.groups import TensorToReduce, reduce_group
from gradflow.hooks.residual.junctions import gradient_products

pytestmark = pytest.mark.skipif(cpu.loops_module() is None, reason="needs the compiled loops")


def tensors():
    torch.manual_seed(0)
    return [
        (torch.randn(1, 8, 16), 2),
        (torch.randn(4, 6, 3, 3) + 5, 1),
        (torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last), 1),
        (torch.randn(7), None),
        (torch.randn(()), None),
        (torch.randn(5, 1, 4), 1),
        (torch.randn(3, 9).t(), 1),
        (torch.ones(()).expand(4, 5), 1),
        (torch.randn(2, 8, 4).double(), 2),
        (torch.randn(2, 8, 4).bfloat16(), 2),
        (torch.tensor([[1.0, float("nan"), float("inf"), 0.0]]), 1),
        (torch.randn(2, 70_000), 1),
        (torch.randn(3, 4, dtype=torch.complex64), 1),
    ]


@pytest.mark.parametrize("histogram", [False, True])
def test_a_group_has_the_bits_that_each_tensor_has_alone(histogram):
    items = [TensorToReduce(x, axis, histogram) for x, axis in tensors()]
    for item, found in zip(items, reduce_group(items), strict=True):
        alone = moments(item.tensor, item.axis, histogram=histogram)
        assert np.array_equal(np.asarray(found.values), np.asarray(alone.values), equal_nan=True)
        sizes = (found.channels, found.elements, found.batch_size, found.has_channels)
        assert sizes == (alone.channels, alone.elements, alone.batch_size, alone.has_channels)
        assert (found.magnitudes is None) == (not histogram)
        if histogram:
            assert torch.equal(found.magnitudes, alone.magnitudes)


def tried(name="layer"):
    habit = Habit(name)
    habit.tried = True
    return habit


def test_small_tensors_wait_until_there_are_enough_for_a_group():
    reductions, x = Reductions(), torch.randn(2, 3)
    waiting = [reductions.reduce(x, 1, False, tried()) for _ in range(deferred.MOST_TENSORS)]
    assert all(one.moments is not None and one.tensor is None for one in waiting)
    later = reductions.reduce(x, 1, False, tried())
    assert later.moments is None
    reductions.flush()
    assert np.array_equal(later.moments.values, moments(x, 1).values)


def test_they_never_hold_more_than_the_bound(monkeypatch):
    monkeypatch.setattr(deferred, "MOST_SMALL_BYTES", 1000)
    reductions, held = Reductions(), []
    for _ in range(20):
        held.append(reductions.reduce(torch.randn(10, 10), 1, False, tried()))
        assert sum(one.size for one in held if one.tensor is not None) <= 1000


def test_large_tensors_and_parameters_do_not_wait():
    reductions = Reductions()
    weight = nn.Parameter(torch.randn(3, 4))
    for x in (torch.randn(300, 300), weight, weight.t(), weight.detach().requires_grad_()):
        assert not isinstance(reductions.reduce(x, 1, False, tried()), DeferredMoments)


def overwrite(x):
    x.add_(1)


def free(x):
    x.untyped_storage().resize_(0)


@pytest.mark.parametrize("change", [overwrite, free])
def test_a_tensor_that_is_gone_when_its_group_is_due_is_missing_and_said(change):
    habit, reductions = tried(), Reductions()
    x, other = torch.randn(2, 3), torch.randn(2, 3)
    lost, kept = (reductions.reduce(one, 1, False, habit) for one in (x, other))
    change(x)
    reductions.flush()
    assert lost.moments is None
    assert kept.moments is not None
    assert reductions.overwritten == ["layer"]
    again = reductions.reduce(other, 1, False, habit)
    assert not isinstance(again, DeferredMoments), "from then on it is reduced at once"


@pytest.mark.parametrize("change", [overwrite, free, lambda x: x.data.add_(1)])
def test_the_first_time_shows_what_cannot_wait(change):
    habit, x = Habit("layer"), torch.randn(2, 3)
    expected = moments(x.clone(), 1).values
    reductions = Reductions()
    seen = reductions.reduce(x, 1, False, habit)
    change(x)
    reductions.flush()
    assert np.array_equal(seen.moments.values, expected)
    assert habit.at_once
    assert not reductions.overwritten


def test_tensors_of_a_device_wait_and_are_handed_over_together(monkeypatch):
    """Here large tensors stand for those of a device: small ones on the CPU have another way."""
    groups, original = [], on_device.reduce_on_device
    monkeypatch.setattr(
        on_device, "reduce_on_device", lambda items: groups.append(len(items)) or original(items)
    )
    xs = [torch.randn(3, 200, 100) for _ in range(5)]
    found = reduce_group([TensorToReduce(x, 1) for x in xs])
    assert groups == [5]
    for x, seen in zip(xs, found, strict=True):
        assert np.array_equal(seen.values, moments(x, 1).values)
    reductions = Reductions()
    assert not isinstance(reductions.reduce(xs[0], 1, False, tried()), DeferredMoments)
    monkeypatch.setattr(on_device, "can_be_grouped", lambda x: True)
    monkeypatch.setattr(on_device, "is_in_order", lambda x: x is not xs[1])
    assert isinstance(reductions.reduce(xs[0], 1, False, tried()), DeferredMoments)
    assert not isinstance(reductions.reduce(xs[1], 1, False, tried()), DeferredMoments)


def test_numbers_of_a_device_are_the_same_up_to_the_order_of_sums():
    x = torch.randn(4, 3, 5).relu()
    first = moments(x, 1)
    rounded = replace(first, values=first.values * (1 + 1e-6))
    rounded.values[-2] = first.values[-2]
    assert not on_device.differ(first, rounded)
    for change in (x + 0.01, x.tanh(), x.mul(2)):
        assert on_device.differ(first, moments(change, 1))


def test_what_differed_on_a_device_never_waits_again():
    reductions, kinds = Reductions(), [Habit("one"), Habit("two")]
    reductions._doubts = [(kinds[0], torch.tensor(True)), (kinds[1], torch.tensor(False))]
    reductions.settle_doubts()
    assert [kind.at_once for kind in kinds] == [True, False]
    assert not reductions._doubts


def test_products_of_gradients_have_the_bits_that_they_have_alone():
    gradients = tuple(torch.randn(2, 8, 4) for _ in range(3))
    reductions = Reductions()
    waiting = [reductions.multiply(gradients, tried(), gradient_products) for _ in range(2)]
    strided = tuple(one.transpose(0, 1) for one in gradients)
    waiting.append(reductions.multiply(strided, tried(), gradient_products))
    assert all(one.products is None for one in waiting)
    reductions.flush()
    for one in waiting[:2]:
        assert np.array_equal(one.products, gradient_products(*gradients))
    assert np.array_equal(waiting[2].products, gradient_products(*strided))


class Overwriting(nn.Module):
    """From the third call on, it overwrites the output of its first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x):
        x = self.first(x)
        self.calls += 1
        return self.second(x.tanh_() if self.calls > 2 else x.tanh())


def test_a_layer_overwritten_later_than_at_first_is_missing_once_and_right_from_then_on(tmp_path):
    torch.manual_seed(0)
    model, x = Overwriting(), torch.randn(3, 4)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for step in range(5):
            model(x).sum().backward()
            said = pytest.warns(UserWarning, match="first is missing in one step")
            with said if step == 2 else nullcontext():
                tracer.step()
    rows = gradflow.open_run(tmp_path / "run").activations.set_index(["layer", "step"])
    assert list(rows.loc["first"].index) == [0, 1, 3, 4]
    expected = model.first(x).detach().norm().item()
    assert rows.loc["first"]["norm"].tolist() == pytest.approx([expected] * 4, rel=1e-6)
    assert list(rows.loc["second"].index) == [0, 1, 2, 3, 4]


def test_what_was_learnt_of_a_layer_is_kept_while_steps_are_not_recorded(tmp_path, monkeypatch):
    at_once = []
    original = deferred._reduce
    monkeypatch.setattr(deferred, "_reduce", lambda *a: at_once.append(a) or original(*a))
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with gradflow.Tracer(model, tmp_path / "run", schedule=2) as tracer:
        for step in range(5):
            at_once.clear()
            model(torch.randn(3, 4)).sum().backward()
            tracer.step()
            assert len(at_once) == (6 if step == 0 else 0)


class Positions(nn.Module):
    """Its sum hands its gradient on to a parameter as it is, and in another shape."""

    def __init__(self):
        super().__init__()
        self.added, self.flat = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(12))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x) + self.added + self.flat.view(3, 4)


def halve(parameter):
    parameter.grad.mul_(0.5)


def train(trace, folder):
    """Gradients that hooks of the user change in place, and that `.grad` could steal."""
    torch.manual_seed(0)
    model = nn.Sequential(Positions(), nn.Sequential(Positions(), nn.ReLU(inplace=True)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(halve)
    found = []
    with gradflow.Tracer(model, folder, optimizer=optimizer) if trace else nullcontext():
        for _ in range(5):
            for _ in range(2):
                y = model(torch.randn(3, 4))
                y.register_hook(lambda gradient: gradient.mul_(3))
                (y * y).mean().backward()
            found.append([parameter.grad.clone() for parameter in model.parameters()])
            optimizer.step()
            optimizer.zero_grad()
    return found


def test_tensors_that_are_held_do_not_change_the_training(tmp_path):
    plain, traced = train(False, None), train(True, tmp_path / "run")
    for one, other in zip(plain, traced, strict=True):
        assert all(value.isfinite().all() for value in one)
        assert all(map(torch.equal, one, other))


class Stem(nn.Module):
    """Adds large tensors, which do not wait, before a head of small ones, which do."""

    def __init__(self):
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        return self.head((x + self.branch(x))[:2])


def test_layers_that_wait_are_joined_over_passes_also_beside_an_addition_that_does_not(tmp_path):
    torch.manual_seed(0)
    model, folder = Stem(), tmp_path / "run"
    outputs = []
    with gradflow.Tracer(model, folder) as tracer:
        for _ in range(3):
            outputs.append([model(torch.randn(20_000, 8)) for _ in range(2)])
            for one in outputs[-1]:
                one.sum().backward()
            tracer.step()
    run = gradflow.open_run(folder)
    found = run.activations[run.activations.layer == "head"]
    assert [*found.step] == [0, 1, 2]
    assert [*found.batch_size] == [4, 4, 4]
    assert [*found.norm] == pytest.approx(
        [float(torch.cat(both).detach().norm()) for both in outputs]
    )
    assert len(run.junctions) == 3
