"""The fused reduction against the plain definitions, one by one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.hooks import statistics
from gradflow.hooks.fused import finish, moments, safe_norm

WHOLE = ("mean", "std", "rms", "norm", "abs_max", "zero_fraction", "nonfinite")
BY_CHANNEL = ("dead_channels", "channel_squared_mean", "channel_variance")


def assert_plain(x: torch.Tensor, axis: int | None, rel: float = 1e-9) -> None:
    result = {name: values[0] for name, values in finish([moments(x, axis)]).items()}
    for name in WHOLE:
        expected = float(getattr(statistics, name)(x.double()))
        assert result[name] == pytest.approx(expected, rel=rel, abs=1e-12, nan_ok=True), name
    for name in BY_CHANNEL:
        if axis is None:
            assert math.isnan(result[name])
        else:
            expected = float(getattr(statistics, name)(x.double(), axis))
            assert result[name] == pytest.approx(expected, rel=rel, abs=1e-12, nan_ok=True), name


def layouts(shape, seed):
    """Tensors of one shape that lie differently in memory, with zeros and a dead channel."""
    x = torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).relu()
    if x.dim() > 1:
        x[:, 0] = 0
    yield x
    if x.dim() == 4:
        yield x.to(memory_format=torch.channels_last)
    if x.dim() > 1:
        yield x.transpose(0, 1).contiguous().transpose(0, 1)
        yield x[:1].expand(3, *x.shape[1:])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=5).map(tuple), seed=st.integers(0, 999)
)
def test_any_shape_and_layout_agrees_with_the_plain_definitions(shape, seed):
    for x in layouts(shape, seed):
        for axis in (None, *range(x.dim())):
            assert_plain(x, axis)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types_are_summed_in_wider_ones(dtype):
    x = (100 * torch.randn(8, 6, 40, 40, generator=torch.Generator().manual_seed(3))).to(dtype)
    assert_plain(x, 1, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e-16, 1e16, 1e30])
def test_squares_that_float32_cannot_hold_are_not_lost(scale):
    x = scale * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    result = finish([moments(x, 1)])
    assert result["norm"][0] == pytest.approx(float(x.double().norm()), rel=1e-5)
    assert result["dead_channels"][0] == 0
    assert float(safe_norm(x)) == pytest.approx(float(x.double().norm()), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_counted_and_shows_in_the_norm(bad):
    x = torch.ones(2, 3, 2, 2)
    x[1, 2, 0, 1] = bad
    result = finish([moments(x, 1)])
    assert result["nonfinite"][0] == 1
    assert not math.isfinite(result["norm"][0])
    assert not math.isfinite(result["abs_max"][0])


def test_many_tensors_are_finished_as_each_would_be_alone():
    generator = torch.Generator().manual_seed(5)
    tensors = [torch.randn(4, c, 3, 3, generator=generator) for c in (1, 7, 2)]
    together = finish([moments(x, 1) for x in tensors])
    for index, x in enumerate(tensors):
        alone = finish([moments(x, 1)])
        assert {name: values[index] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }


def test_joined_moments_are_those_of_the_concatenated_batch():
    generator = torch.Generator().manual_seed(6)
    first = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    second = 5 + torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    joined = moments(first, 1).join(moments(second, 1))
    whole = moments(torch.cat([first, second]), 1)
    assert joined.batch_size == 6
    for name, values in finish([joined]).items():
        assert values[0] == pytest.approx(finish([whole])[name][0], rel=1e-12), name


@pytest.mark.parametrize(
    "x", [torch.zeros(0, 3), torch.arange(3), torch.zeros(2, dtype=torch.complex64)]
)
def test_what_has_no_such_statistics_is_refused(x):
    with pytest.raises(TypeError, match="non-empty real floating tensor"):
        moments(x, None)
