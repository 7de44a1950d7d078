"""Parameters measured together have the numbers of each measured alone, whatever changes them."""

import copy
import json
import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

import gradflow
from gradflow.hooks.reduction import cpu
from gradflow.hooks.updates.measures import grouped
from gradflow.hooks.updates.parameters import ParameterRecorder

QUANTITIES = (
    "weight_norm",
    "backward_gradient_norm",
    "gradient_norm",
    "update_norm",
    "gradient_cosine",
)


@pytest.fixture(params=["one compiled loop", "grouped", "one by one"])
def way(request, monkeypatch):
    if request.param != "one compiled loop":
        monkeypatch.setattr(cpu, "addresses_module", lambda: None)
    monkeypatch.setattr(grouped, "_trusted", {})
    if request.param == "grouped":
        monkeypatch.setattr(cpu, "loops_module", lambda: None)
    if request.param == "one by one":
        monkeypatch.setattr(grouped, "_are_right", lambda device: False)
    return request.param


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def parameter(*shape):
            return Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).float())

        self.matrix, self.square = parameter(3, 4), parameter(5, 5)
        self.kernel, self.bias, self.scalar = parameter(2, 3, 3, 2), parameter(7), parameter()
        self.wide = Parameter(parameter(6).double())
        self.empty = parameter(0)
        self.spectrum = Parameter(torch.complex(parameter(4).detach(), parameter(4).detach()))
        self.low = Parameter(parameter(9).detach().bfloat16())
        self.gaps = Parameter(parameter(4, 6).detach()[:, ::2])
        self.turned = Parameter(parameter(4, 6).detach().t())
        self.tied = self.bias
        self.frozen = parameter(3).requires_grad_(False)


def real(x):
    x = x.detach()
    return (torch.view_as_real(x) if x.is_complex() else x).double().flatten()


def norm(x):
    return float(real(x).norm())


def fill_gradients(net, step):
    """New gradients in new memory, as backward passes leave them."""
    generator = torch.Generator().manual_seed(step)
    for name, one in net.named_parameters():
        one.grad = None
        if one.requires_grad and not (name == "scalar" and step % 2):
            drawn = torch.randn(one.shape, generator=generator, dtype=torch.float64)
            one.grad = torch.empty_like(one.detach()).copy_(drawn + 0.5)


def steps_of(net, steps, *, change=lambda net, step: None, within=lambda net, step: None):
    """Train; yield the expected and the recorded numbers by parameter and quantity.

    `change` is applied between two steps, `within` after the weights are measured and before the
    step has ended.
    """
    recorder, before = ParameterRecorder(net), {}
    for step in range(steps):
        change(net, step)
        recorder.follow_arrivals()
        fill_gradients(net, step)
        trained = {n: one for n, one in net.named_parameters() if one.requires_grad}
        expected = {name: {"weight_norm": norm(one)} for name, one in trained.items()}
        kept = {name: one.detach().clone() for name, one in trained.items()}
        recorder.pass_ended()
        gradients = {n: one.grad for n, one in trained.items() if one.grad is not None}
        for name, gradient in gradients.items():
            expected[name]["backward_gradient_norm"] = norm(gradient)
            gradient.mul_(0.5)
            expected[name]["gradient_norm"] = norm(gradient)
            last = before.get(name)
            if last is not None and (last.dtype, last.shape) == (gradient.dtype, gradient.shape):
                cosine = torch.dot(real(last), real(gradient)) / norm(last) / norm(gradient)
                expected[name]["gradient_cosine"] = float(cosine)
        before = {name: one.clone() for name, one in gradients.items()}
        recorder.begin_update(record=True, keep_weights=True)
        recorder.measure_gradients(None, record=True, keep_gradients=True)
        with torch.no_grad():
            for name, gradient in gradients.items():
                trained[name].sub_(gradient, alpha=0.1)
        within(net, step)
        now = dict(net.named_parameters())
        for name, one in kept.items():
            if (now[name].dtype, now[name].shape) == (one.dtype, one.shape):
                difference = real(now[name]) - real(one)
                expected[name]["update_norm"] = float(difference.norm())
        found = recorder.after_update(received_as_left=False)
        recorder.end_step()
        yield expected, found


def compare(expected, found, way, reordered=()):
    assert set(found) == set(expected)
    for name, row in expected.items():
        recorded = found[name]
        nothing = {key for key, value in row.items() if math.isnan(value)}  # of empty tensors
        assert set(recorded) - nothing == set(row) - nothing, name
        for quantity in set(row) - nothing:
            # Without the loops, differences and products are rounded as the tensors are.
            rounded = quantity in ("update_norm", "gradient_cosine") and (
                way != "one compiled loop" or name in ("gaps", "low", "bias", *reordered)
            )
            rough = 1e-12 if not rounded else 3e-2 if name in ("low", "bias") else 1e-6
            value = float(recorded[quantity])
            assert value == pytest.approx(row[quantity], rel=rough, abs=rough * 0.1), (
                name,
                quantity,
            )


def nothing(net, step):
    pass


def swapped_data(net, step):
    if step == 3:
        net.matrix.data = net.matrix.data.clone().mul_(2)


def another_shape(net, step):
    if step == 3:
        net.matrix.data = net.matrix.data.reshape(4, 3)


def turned_square(net, step):
    if step == 3:
        net.square.data = net.square.data.t()


def turned_and_copied(net, step):
    if step == 3:
        net.matrix.data = net.matrix.data.t().contiguous()


def shortened(net, step):
    if step == 3:
        net.bias.data = net.bias.data[:5]


def another_dtype(net, step):
    if step == 3:
        net.matrix.data = net.matrix.data.double()


def halved(net, step):
    if step == 3:
        net.low.data = net.low.data.float()
        net.bias.data = net.bias.data.bfloat16()


def another_format(net, step):
    if step == 3:
        net.kernel.data = net.kernel.data.to(memory_format=torch.channels_last)


def frozen_and_thawed(net, step):
    net.matrix.requires_grad_(step not in (2, 3))
    net.frozen.requires_grad_(step > 2)


def grown(net, step):
    if step == 3:
        net.inner = nn.Linear(3, 2)


def shrunk(net, step):
    if step == 3:
        del net.matrix


def replaced(net, step):
    if step == 3:
        net.matrix = Parameter(torch.full((3, 4), 2.0))


def untied(net, step):
    if step == 3:
        net.tied = Parameter(torch.ones(7))


CHANGES = (
    nothing,
    swapped_data,
    another_shape,
    turned_square,
    turned_and_copied,
    shortened,
    another_dtype,
    halved,
    another_format,
    frozen_and_thawed,
    grown,
    shrunk,
    replaced,
    untied,
)
WITHIN = (swapped_data, another_shape, turned_and_copied, shortened, another_dtype, halved)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_between_two_steps_are_noticed(way, change):
    # Their copies keep the order in memory that the weights had.
    reordered = ("square", "kernel") if change in (turned_square, another_format) else ()
    for expected, found in steps_of(Net(), 6, change=change):
        compare(expected, found, way, reordered)


@pytest.mark.parametrize("change", WITHIN)
def test_changes_within_a_step_are_noticed(way, change):
    for expected, found in steps_of(Net(), 6, within=change):
        compare(expected, found, way)


def test_a_kept_gradient_that_is_given_other_memory_leaves_its_cosine_missing():
    net, kept = Net(), {}
    for name in ("empty", "spectrum", "low", "gaps"):
        delattr(net, name)

    def swap(net, step):
        if step == 4:
            # As long as before, so that its norm does not tell.
            kept["matrix"].data = -kept["matrix"].data

    def keep(net, step):
        kept["matrix"] = net.matrix.grad

    for step, (expected, found) in enumerate(steps_of(net, 6, change=swap, within=keep)):
        if step == 4:
            assert "gradient_cosine" not in found["matrix"]
        elif step:
            cosine = expected["matrix"]["gradient_cosine"]
            assert found["matrix"]["gradient_cosine"] == pytest.approx(cosine, rel=1e-12)


class Counting(TorchDispatchMode):
    """Counts the operations but those that launch nothing."""

    free = ("detach", "empty_like", "unbind", "view", "alias", "select", "set_", "lift_fresh")

    def __init__(self):
        super().__init__()
        self.count, self.names = 0, []

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        if name not in self.free:
            self.count += 1
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def operations(count):
    net = nn.ParameterList(torch.randn(8, 8) for _ in range(count))
    recorder = ParameterRecorder(net)
    for step in range(4):
        recorder.begin_update(record=True, keep_weights=True)
        for index, one in enumerate(net):
            one.grad = torch.full_like(one, step + index + 1.0)
        with Counting() as counting:
            recorder.pass_ended()
            recorder.begin_update(record=True, keep_weights=True)
            recorder.measure_gradients(None, record=True, keep_gradients=True)
            found = recorder.after_update(received_as_left=False)
            recorder.end_step()
    assert set(found["0"]) == set(QUANTITIES)
    return counting


def test_on_a_device_the_launches_do_not_grow_with_the_parameters(monkeypatch):
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    monkeypatch.setattr(cpu, "addresses_module", lambda: None)
    few, many = operations(5), operations(50)
    assert few.count == many.count <= 30, few.names
    assert not {"_local_scalar_dense", "item", "equal", "allclose"} & set(many.names[:])


def test_what_grouped_operations_need_is_bounded(monkeypatch):
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    assert grouped.prepare(torch.device("cpu"))
    monkeypatch.setattr(grouped, "_AT_ONCE", 1000)
    sizes = []

    def multiply(first, second, original=torch._foreach_mul):
        sizes.append(sum(one.numel() * one.element_size() for one in first))
        return original(first, second)

    monkeypatch.setattr(torch, "_foreach_mul", multiply)
    first = [torch.randn(50 + k) for k in range(9)] + [torch.randn(400)]
    second = [torch.randn_like(one) for one in first]
    found = grouped.products(first, second)
    expected = [torch.dot(x.double(), y.double()) for x, y in zip(first, second, strict=True)]
    assert found.tolist() == pytest.approx([float(one) for one in expected], rel=1e-5, abs=1e-5)
    assert len(sizes) == 6  # in float64, nine of 400 bytes and more by two, and a large one
    assert max(sizes[:-1]) <= 1000


def test_products_of_half_precision_do_not_underflow(monkeypatch):
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    x = torch.full((10,), 1e-5).half()
    found = float(grouped.products([x], [-x])[0])
    assert found == pytest.approx(-float(x.double().square().sum()), rel=1e-6)


def test_grouped_norms_that_are_wrong_are_not_used(monkeypatch):
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    monkeypatch.setattr(grouped, "_trusted", {})
    original = torch._foreach_norm

    def wrong(tensors, *args, **options):
        # As once: some of them are 0, if large tensors are among them.
        found = original(tensors, *args, **options)
        return [one * 0 if index == 3 else one for index, one in enumerate(found)]

    monkeypatch.setattr(torch, "_foreach_norm", wrong)
    assert not grouped.prepare(torch.device("cpu"))
    tensors = [torch.ones(size) for size in (1, 4, 9, 16)]
    assert grouped.groups_of(tensors) == ([], [0, 1, 2, 3])


def calls_of_a_step(count):
    """How often a recorded step calls a function or a method from Python."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(count)))
    recorder = ParameterRecorder(net)
    calls = []

    def counted(frame, event, argument):
        calls.append(event in ("call", "c_call"))

    for step in range(5):
        recorder.follow_arrivals()
        net(torch.ones(1, 2)).sum().backward()
        if step == 4:
            sys.setprofile(counted)
        try:
            recorder.follow_arrivals()
            recorder.pass_ended()
            recorder.begin_update(record=True, keep_weights=True)
            recorder.measure_gradients(None, record=True, keep_gradients=True)
            recorder.after_update(received_as_left=False)
            recorder.end_step()
        finally:
            sys.setprofile(None)
        for one in net.parameters():
            one.grad = None
    return sum(calls)


def test_python_calls_hardly_grow_with_the_parameters():
    # One by one it took some forty calls for each parameter.
    few, many = calls_of_a_step(5), calls_of_a_step(55)
    assert many - few < 100


def test_training_is_bit_for_bit_that_without_the_tracer(way, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    twin = copy.deepcopy(net)

    def train(net):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        yield optimizer
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()

    steps = train(net)
    with gradflow.Tracer(net, tmp_path / "run", optimizer=next(steps)):
        list(steps)
    list(train(twin))
    assert all(map(torch.equal, net.parameters(), twin.parameters()))
    means = json.loads((tmp_path / "run" / "run.json").read_text())["means"]
    assert means["parameters"] == way
