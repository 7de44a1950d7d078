"""Tensors that do not wait, of which all but the address is known after the first of their kind."""

import threading

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu, definition
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import DeferredMoments, Habit
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.hooks.residual.junctions import gradient_products

pytestmark = pytest.mark.skipif(cpu.loops_module() is None, reason="needs the compiled loops")

SHAPE = (6, 20, 17, 19)
"""More elements than one thread reads alone; no number of threads divides it."""


@pytest.fixture(params=[1, 3])
def threads(request):
    """Run with one thread, then with three."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(seed, *, dtype=torch.float32, channels_last=False):
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype).relu() + seed
    return x.to(memory_format=torch.channels_last) if channels_last else x


def learnt(axis, **options):
    """Reductions, and what they know of a kind of which they have seen one."""
    reductions, habit = Reductions(), Habit("large")
    reductions.reduce(drawn(0, **options), axis, False, habit)
    assert habit.usual is not None
    return reductions, habit


def statistics(seen):
    found = seen.moments if isinstance(seen, DeferredMoments) else seen
    return {name: values[0] for name, values in to_statistics([found]).items()}


@pytest.mark.parametrize("axis", [None, 1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_has_the_statistics_of_the_definition(axis, channels_last, dtype, threads):
    options = {"dtype": dtype, "channels_last": channels_last}
    reductions, habit = learnt(axis, **options)
    x = drawn(1, **options)
    seen = reductions.note_usual(x, habit.usual)
    reductions.flush()
    found, exact = statistics(seen), x.double()
    for name in ("mean", "std", "norm", "abs_max", "kurtosis", "zero_fraction", "nonfinite"):
        wanted = getattr(definition, name)(exact).item()
        assert found[name] == pytest.approx(wanted, rel=1e-9), name
    if axis is not None:
        for name in ("channel_variance", "channel_squared_mean"):
            wanted = getattr(definition, name)(exact, axis).item()
            assert found[name] == pytest.approx(wanted, rel=1e-9), name


def test_it_has_the_bits_that_it_has_alone(threads):
    reductions, habit = learnt(1)
    tensors = [drawn(seed) for seed in range(1, 5)]
    tensors[2][0, 0, 0, :2] = torch.tensor([torch.nan, -torch.inf])
    noted = [reductions.note_usual(x, habit.usual) for x in tensors]
    reductions.flush()
    for x, seen in zip(tensors, noted, strict=True):
        wanted = torch.as_tensor(moments(x, 1).values)
        found = torch.as_tensor(seen.moments.values)
        assert torch.equal(found.nan_to_num(7), wanted.nan_to_num(7))


def test_what_is_overwritten_afterwards_has_the_values_that_it_had(threads):
    reductions, habit = learnt(1)
    x = drawn(1)
    wanted = definition.norm(x.double()).item()
    seen = reductions.note_usual(x, habit.usual)
    x.zero_()
    reductions.flush()
    assert statistics(seen)["norm"] == pytest.approx(wanted, rel=1e-9)
    assert not reductions.overwritten


ODD = {
    "order in memory": lambda x: x.to(memory_format=torch.channels_last),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "double": torch.Tensor.double,
    "half": torch.Tensor.bfloat16,
    "negated view": lambda x: torch._neg_view(-x),
    "sparse": torch.Tensor.to_sparse,
}


@pytest.mark.parametrize("kind", ODD)
def test_one_that_looks_otherwise_is_looked_at(kind, threads):
    reductions, habit = learnt(1)
    x = ODD[kind](drawn(1))
    try:
        seen = reductions.note_usual(x, habit.usual)
    except RuntimeError:  # it has no address: whoever asks reduces it in another way
        assert kind == "sparse"
        return
    reductions.flush()
    found, exact = statistics(seen), x.double()
    assert found["norm"] == pytest.approx(definition.norm(exact).item(), rel=1e-6)
    wanted = definition.channel_variance(exact, 1).item()
    assert found["channel_variance"] == pytest.approx(wanted, rel=1e-6)


def test_it_follows_the_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        reductions, habit = learnt(1)
        for count in (3, 1, 2):
            torch.set_num_threads(count)
            x = drawn(count)
            seen = reductions.note_usual(x, habit.usual)
            reductions.flush()
            assert (seen.moments.values == moments(x, 1).values).all()
    finally:
        torch.set_num_threads(before)


def test_threads_that_reduce_tensors_of_one_kind_at_once_do_not_mix_them(threads):
    _, habit = learnt(1)
    tensors = [drawn(seed) for seed in range(1, 5)]
    wanted = [definition.norm(x.double()).item() for x in tensors]
    found = [[] for _ in tensors]
    begin = threading.Barrier(len(tensors))

    def reduce_again_and_again(x, norms):
        begin.wait()
        for _ in range(20):
            values = habit.usual.prepared(x.data_ptr())
            norms.append(float(values[20:40].sum()) ** 0.5)

    running = [
        threading.Thread(target=reduce_again_and_again, args=pair)
        for pair in zip(tensors, found, strict=True)
    ]
    for one in running:
        one.start()
    for one in running:
        one.join()
    for norm, norms in zip(wanted, found, strict=True):
        assert norms == pytest.approx([norm] * 20, rel=1e-9)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_at_an_addition_have_the_products_that_they_have_alone(channels_last, threads):
    reductions, habit = Reductions(), Habit("at an addition")
    given = tuple(drawn(seed, channels_last=channels_last) for seed in (1, 2, 3))
    reductions.multiply(given, habit, gradient_products)
    addresses = tuple(map(torch.Tensor.data_ptr, given))
    found = habit.usual.prepared(addresses)
    w, s, b = (one.double() for one in given)
    g = s + b
    pairs = ((g, g), (s, s), (b, b), (s, b), (s, g), (w, w), (w - g, w - g))
    wanted = [(one * other).sum().item() for one, other in pairs]
    assert found.tolist() == pytest.approx(wanted, rel=1e-11)
    assert found.tolist() == gradient_products(*given).tolist()


class Block(nn.Module):
    """Reads x twice in its branch, as a norm of several operations does."""

    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.convolution(x * x.mean((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_model_of_large_tensors_is_recorded_as_autograd_has_it(tmp_path, channels_last, threads):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), Block(12), nn.ReLU(inplace=True))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    norms = {"activations": [], "gradients": []}

    def keep(module, args, output):
        norms["activations"].append(output.detach().double().norm().item())
        output.register_hook(lambda g: norms["gradients"].append(g.double().norm().item()))

    def keep_at_input(module, args, output):
        output.register_hook(lambda g: at_input.append(g.double().norm().item()))

    at_input = []
    model[0].register_forward_hook(keep_at_input)
    model[1].convolution.register_forward_hook(keep)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(4):
            x = torch.randn(4, 3, 30, 31)
            if channels_last:
                x = x.to(memory_format=torch.channels_last)
            model(x).square().mean().backward()
            tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    for table, wanted in norms.items():
        rows = getattr(run, table)
        found = rows[rows.layer == "1.convolution"]["norm"].tolist()
        assert found == pytest.approx(wanted, rel=1e-6), table
    found = run.junctions["input_gradient_norm"].tolist()
    assert found == pytest.approx(at_input, rel=1e-6)
    assert (run.junctions["residual_error"] < 1e-6).all()
