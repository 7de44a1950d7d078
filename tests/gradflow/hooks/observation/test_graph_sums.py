"""The moments that follow from sums by channel are those computed from the elements."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from gradflow.hooks.observation.graph_sums import Buffers, SumsTogether, units_on, write
from gradflow.hooks.reduction.fused import moments

UNITS = units_on(torch.device("cpu"))


def tensors():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    relu = normal(4, 3, 5, 2).relu()
    apart = normal(6, 4) + torch.tensor([0.0, 1e3, -1e3, 10.0])
    return [
        (relu, 1),
        (apart, 1),
        (normal(2, 7, 5), 2),
        (normal(9), None),
        (normal(3, 4), None),
        (torch.tensor(2.5, dtype=torch.float64), None),
        (torch.zeros(2, 3, dtype=torch.float64), 1),
        (normal(4, 3, 2, dtype=torch.float32), 1),
        (normal(4, 3, 2, dtype=torch.bfloat16), 1),
        (normal(2, 5).T, 1),
    ]


def together(given, device="cpu"):
    channels = [1 if axis is None else x.shape[axis] for x, axis in given]
    buffers = [Buffers.of(count, UNITS) for count in channels]
    for (x, axis), one in zip(given, buffers, strict=True):
        write(x, axis, one, UNITS)
    sums = SumsTogether(buffers, torch.device(device))
    return sums.split(sums.moments())


@pytest.mark.parametrize("device", ["cpu", "mps"])  # those of Metal are computed on the CPU later
def test_numbers_are_those_of_the_elements(device):
    given = tensors()
    for (x, axis), found in zip(given, together(given, device), strict=True):
        assert (found.elements, found.passes) == (x.numel(), 1)
        assert found.length == (len(x) if x.dim() else 1)
        wide = x.double().numpy()
        by_channel = wide.reshape(1, -1) if axis is None else np.moveaxis(wide, axis, 0)
        by_channel = by_channel.reshape(len(by_channel), -1)
        channels = len(by_channel)
        sums, squares, deviations = found.values[:-6].reshape(3, channels)
        np.testing.assert_allclose(sums, by_channel.sum(1), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(squares, (by_channel**2).sum(1), rtol=1e-12)
        around = ((by_channel - by_channel.mean(1, keepdims=True)) ** 2).sum(1)
        np.testing.assert_allclose(deviations, around, rtol=1e-9, atol=1e-12)
        base, third, fourth, largest, zeros, nonfinite = found.values[-6:]
        assert base == by_channel[0, 0]
        scale = ((by_channel - base) ** 4).sum()
        assert fourth == pytest.approx(scale, rel=1e-12)
        assert third == pytest.approx(((by_channel - base) ** 3).sum(), abs=1e-12 * (1 + scale))
        assert largest == np.abs(wide).max()
        assert (zeros, nonfinite) == ((wide == 0).sum(), 0)


def test_the_kurtosis_is_that_of_scipy():
    x = torch.randn(8, 4, 6, dtype=torch.float64) + torch.arange(4.0).reshape(4, 1)
    (found,) = together([(x, 1)])
    base, third, fourth = found.values[-6:-3]
    sums, squares, _ = found.values[:-6].reshape(3, 4)
    count = x.numel()
    moment = [  # about the base
        (sums.sum() - count * base) / count,
        (squares.sum() - 2 * base * sums.sum() + count * base**2) / count,
        third / count,
        fourth / count,
    ]
    mean, second, third, fourth = moment
    central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    kurtosis = central / (second - mean**2) ** 2 - 3
    assert kurtosis == pytest.approx(stats.kurtosis(x.flatten()), rel=1e-10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 4])
def test_values_that_are_not_finite_stay_in_their_channel_and_tensor(value, place):
    x = torch.randn(5, 3, 2, dtype=torch.float64)
    x[place, 1, 0] = value
    other = torch.randn(4, 2, dtype=torch.float64)
    found, beside = together([(x, 1), (other, 1)])
    by_reading = moments(x, 1).values
    by_reading = np.asarray(by_reading)
    sums = found.values[:3]
    np.testing.assert_allclose(sums[[0, 2]], by_reading[[0, 2]], rtol=1e-12)
    assert not np.isfinite(sums[1])
    assert found.values[-1] == 1
    assert not np.isfinite(found.values[-3])
    assert np.isfinite(beside.values).all()
    assert beside.values[-1] == 0


def test_passes_add_up_in_number():
    buffers = Buffers.of(2, UNITS)
    for count in (3, 4):
        write(torch.ones(count, 2), 1, buffers, UNITS)
    assert buffers.counts.tolist() == [14, 7, 2]
    sums = SumsTogether([buffers])
    assert sums.has_run()
    sums.begin_step()
    assert not sums.has_run()


class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, units, sums, counts):
        ctx.buffers = sums, counts
        ctx.units = units
        write(x, 1, Buffers(sums, counts), units)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        write(gradient, 1, Buffers(*ctx.buffers), ctx.units)
        return gradient, None, None, None


@pytest.mark.slow
@torch._dynamo.config.patch(skip_nnmodule_hook_guards=False)
def test_a_tensor_costs_a_loop_and_little_else():
    from torch._inductor import metrics  # noqa: PLC0415 - slow to load

    kernels = []
    for observed in (False, True):
        torch._dynamo.reset()
        metrics.reset()
        model = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(4)), nn.ReLU())
        if observed:
            for module in model:
                buffers = Buffers.of(4, UNITS)
                module.register_forward_hook(
                    lambda m, a, y, b=buffers: Identity.apply(y, UNITS, *b)
                )
        model.compile(fullgraph=True)
        model(torch.randn(3, 4, 16, 16)).square().sum().backward()
        kernels.append(metrics.generated_kernel_count)
    assert kernels[0] < kernels[1] <= kernels[0] + 10 * 6
