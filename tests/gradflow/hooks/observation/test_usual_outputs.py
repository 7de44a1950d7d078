"""From the third step on most outputs are as usual, and are noted alone: the numbers stay right."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction.deferred import noted as noting
from gradflow.hooks.reduction.deferred import same_looks, usual
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, Habit, Usual
from gradflow.hooks.reduction.groups import geometry_of

STEPS = 7
ODD = 5


class Net(nn.Module):
    """Three layers of two widths; `change` is called with the output of the second."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)
        self.change = lambda x: x

    def forward(self, x):
        return self.last(self.change(self.second(torch.tanh(self.first(x)))))


def batch(step, rows=4):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(step))


@pytest.fixture
def noted(monkeypatch):
    """How many tensors were noted as usual."""
    count, original = [], noting.UsualReductions.note
    monkeypatch.setattr(noting.UsualReductions, "note", lambda *a: count.append(1) or original(*a))
    return count


def keep(seen, name, module, args, output):
    output.retain_grad()
    seen.setdefault(name, []).append((output, output.detach().clone()))


def trace(model, folder, prepare=lambda step, model: None, passes=lambda step: [batch(step)]):
    """Train, and return by table, step and layer the norms that autograd gives by hand."""
    expected = {"activations": {}, "gradients": {}}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, folder, optimizer=optimizer):
        for step in range(STEPS):
            prepare(step, model)
            seen = {}
            handles = [
                one.register_forward_hook(partial(keep, seen, name))
                for name, one in model.named_children()
            ]
            for x in passes(step):
                model(x).square().mean().backward()
            for name, outputs in seen.items():
                values = torch.cat([value.flatten() for _, value in outputs])
                gradients = torch.cat([output.grad.flatten() for output, _ in outputs])
                expected["activations"][step, name] = float(values.double().norm())
                expected["gradients"][step, name] = float(gradients.double().norm())
            for handle in handles:
                handle.remove()
            optimizer.step()
            optimizer.zero_grad()
    run = gradflow.open_run(folder)
    found = {}
    for table in expected:
        rows = getattr(run, table)
        rows = rows[rows["layer"].isin([name for name, _ in model.named_children()])]
        found[table] = dict(
            zip(zip(rows["step"], rows["layer"], strict=True), rows["norm"], strict=True)
        )
    return found, expected


def assert_same(found, expected, missing=()):
    for table, norms in expected.items():
        wanted = {key: one for key, one in norms.items() if (table, *key) not in missing}
        assert found[table].keys() == wanted.keys()
        for key, norm in wanted.items():
            assert found[table][key] == pytest.approx(norm, rel=1e-6), (table, key)


def test_each_step_has_its_own_numbers(tmp_path, noted):
    assert_same(*trace(Net(), tmp_path))
    assert len(noted) > 2 * 3 * (STEPS - 3), "the moments of earlier steps were not used again"


def test_so_have_several_passes_of_a_step(tmp_path, noted):
    assert_same(*trace(Net(), tmp_path, passes=lambda step: [batch(step), batch(step + 50)]))
    assert noted


def test_other_shapes_in_some_steps(tmp_path, noted):
    assert_same(*trace(Net(), tmp_path, passes=lambda step: [batch(step, 3 + (step == ODD))]))
    assert noted


def test_gaps_in_memory_in_one_step(tmp_path, noted):
    class Gapped(nn.Linear):
        has_gaps = False

        def forward(self, x):
            y = super().forward(x)
            return torch.cat([y, 9 * y], 1)[:, :8] if self.has_gaps else y

    model = Net()
    model.second = Gapped(8, 8)

    def prepare(step, model):
        model.second.has_gaps = step == ODD

    assert_same(*trace(model, tmp_path, prepare))
    assert noted


def test_an_output_overwritten_in_one_step_is_missing_there_alone(tmp_path, noted):
    def prepare(step, model):
        model.change = (lambda x: x.mul_(2)) if step == ODD else (lambda x: x)

    with pytest.warns(UserWarning, match="second"):
        found, expected = trace(Net(), tmp_path, prepare)
    # By hand, the gradient kept at this output is that of what it was overwritten with.
    del expected["gradients"][ODD, "second"], found["gradients"][ODD, "second"]
    assert_same(found, expected, {("activations", ODD, "second")})
    assert noted


def test_a_layer_that_is_left_out_in_one_step_has_no_row_there(tmp_path, noted):
    model, step_under_way = Net(), []
    whole = model.forward
    model.forward = lambda x: model.last(model.first(x)) if step_under_way[-1] == ODD else whole(x)
    found, expected = trace(model, tmp_path, lambda step, model: step_under_way.append(step))
    assert (ODD, "second") not in found["activations"]
    assert_same(found, expected)
    assert noted


def test_the_check_of_all_looks_changes_no_number(tmp_path, monkeypatch):
    tables = []
    for check in (same_looks.check_of, lambda tensors: None):
        monkeypatch.setattr(same_looks, "check_of", check)
        folder = tmp_path / str(len(tables))
        trace(Net(), folder, passes=lambda step: [batch(step, 3 + (step == ODD))])
        run = gradflow.open_run(folder)
        tables.append([run.activations, run.gradients, run.parameters])
    for with_check, without in zip(*tables, strict=True):
        for name in with_check.columns:
            np.testing.assert_array_equal(with_check[name], without[name])


def test_what_is_known_of_groups_stays_small(monkeypatch):
    monkeypatch.setattr(usual, "_MOST_GROUPS", 3)
    groups = usual.UsualGroups()
    habits = [Habit(str(number)) for number in range(10)]
    for habit in habits:
        geometry = geometry_of(torch.Size([4, 3]), 1)
        one = Usual(habit, torch.Size([4, 3]), 1, torch.float32, geometry, 48)
        x, seen = torch.randn(4, 3), DeferredMoments()
        assert groups.reduce([x, x._version, x.data_ptr(), one, seen]) == []
        assert seen.moments is not None
    assert len(groups._known) <= 3


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_layer_that_begins_to_give_nested_tensors_does_not_end_the_training(tmp_path):
    class Nesting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.nests = nn.Linear(8, 8), False

        def forward(self, x):
            y = self.linear(x)
            return torch.nested.as_nested_tensor([*y]) if self.nests else y * 2

    model = Net()
    nesting = model.second = Nesting()
    model.change = lambda x: torch.stack([*x.unbind()]) if x.is_nested else x
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    observe = ["second", "second.linear"]
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, observe=observe) as tracer:
        for step in range(STEPS + 3):
            nesting.nests = step >= STEPS
            model(batch(step)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").activations
    assert rows[rows.layer == "second.linear"].step.tolist() == list(range(STEPS + 3))
    assert rows[rows.layer == "second"].step.tolist()[:STEPS] == list(range(STEPS))
