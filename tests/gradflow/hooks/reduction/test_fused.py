"""The fused reduction against the plain definitions, one by one."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.hooks.reduction import definition
from gradflow.hooks.reduction.fused import moments, safe_norm
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS

SHAPES = st.lists(st.integers(1, 5), min_size=0, max_size=5).map(tuple)
SPECIAL = (0.0, -0.0, 1.0, -3.0, 1e-40, 1e-45, 6e-8, 65504.0, 1e30, -3e38, math.inf, math.nan)
WHOLE = tuple(one.name for one in TENSOR_STATISTICS if not one.by_channel)
BY_CHANNEL = tuple(one.name for one in TENSOR_STATISTICS if one.by_channel)
pytestmark = pytest.mark.usefixtures("backend")


def assert_plain(x: torch.Tensor, axis: int | None, rel: float = 1e-9) -> None:
    result = {name: values[0] for name, values in to_statistics([moments(x, axis)]).items()}
    x = x.double()
    finite = x[torch.isfinite(x)]
    unit = float(finite.abs().max()) if finite.numel() else 0.0
    for name in WHOLE + BY_CHANNEL:
        if name in BY_CHANNEL and axis is None:
            assert math.isnan(result[name])
            continue
        arguments = (x, axis) if name in BY_CHANNEL else (x,)
        expected = float(getattr(definition, name)(*arguments))
        smallest = 1e-12 * (unit**2 if name.startswith("channel_") else unit)
        assert result[name] == pytest.approx(expected, rel=rel, abs=smallest, nan_ok=True), name


def layouts(shape, seed):
    """Tensors of one shape with different memory layouts, with zeros and a dead channel."""
    x = torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).relu()
    if x.dim() > 1:
        x[:, 0] = 0
    yield x
    if x.dim() == 4:
        yield x.to(memory_format=torch.channels_last)
    if x.dim() == 5:
        yield x.to(memory_format=torch.channels_last_3d)
    if x.dim() > 1:
        yield x.transpose(0, 1).contiguous().transpose(0, 1)
        yield x[:1].expand(3, *x.shape[1:])
        yield x.repeat_interleave(2, dim=-1)[..., ::2]


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 999))
def test_any_shape_and_layout_agrees_with_the_plain_definitions(shape, seed):
    for x in layouts(shape, seed):
        for axis in (None, *range(x.dim())):
            assert_plain(x, axis)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    special=st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_any_dtype_and_value_agrees_with_the_plain_definitions(shape, dtype, special, seed):
    generator = torch.Generator().manual_seed(seed)
    choice = torch.randint(len(special), shape, generator=generator)
    x = torch.tensor(special, dtype=torch.float64)[choice].to(dtype)
    for axis in (None, *range(x.dim())):
        assert_plain(x, axis)


def exact_variance(x: torch.Tensor) -> float:
    """The mean over channels (axis 1) of the variance, in rational arithmetic."""
    variances = []
    for channel in x.double().movedim(1, 0).reshape(x.shape[1], -1).tolist():
        values = [Fraction(value) for value in channel]
        mean = sum(values) / len(values)
        variances.append(sum((value - mean) ** 2 for value in values) / len(values))
    return float(sum(variances) / len(variances))


@pytest.mark.parametrize(("first", "rel"), [(1e6, 1e-13), (-1e6, 1e-10)])
def test_a_mean_far_larger_than_the_deviations_costs_no_digits(first, rel):
    x = 1e6 + torch.randn(4, 2, 20, 20, generator=torch.Generator().manual_seed(7))
    x[0, :, 0, 0] = first  # sums are taken about the first element: it may lie far off
    found = to_statistics([moments(x, 1)])["channel_variance"][0]
    assert found == pytest.approx(exact_variance(x), rel=rel)


def test_elements_that_are_all_equal_have_no_deviation_at_all():
    assert to_statistics([moments(torch.full((3, 2, 7), 0.1), 1)])["std"][0] == pytest.approx(
        0, abs=1e-17
    )


def test_squares_of_half_precision_do_not_overflow():
    x = torch.full((2, 2, 4, 4), 60000.0, dtype=torch.float16)
    assert to_statistics([moments(x, 1)])["norm"][0] == pytest.approx(
        8 * float(x[0, 0, 0, 0]), rel=1e-12
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("axis", [None, 1])
def test_threads_share_a_large_tensor_and_find_the_same(layout, axis, monkeypatch):
    x = torch.randn(8, 16, 50, 50, generator=torch.Generator().manual_seed(8)).relu()
    x = x.to(memory_format=layout)
    alone = to_statistics([moments(x, axis, histogram=True)])
    bins = moments(x, axis, histogram=True).magnitudes
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shared = moments(x, axis, histogram=True)
    assert torch.equal(shared.magnitudes, bins)
    for name, values in to_statistics([shared]).items():
        assert values[0] == pytest.approx(alone[name][0], rel=1e-12, nan_ok=True), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types_are_summed_in_wider_ones(dtype):
    x = (100 * torch.randn(8, 6, 40, 40, generator=torch.Generator().manual_seed(3))).to(dtype)
    assert_plain(x, 1)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e-16, 1e16, 1e30])
def test_squares_that_float32_cannot_hold_are_not_lost(scale):
    x = scale * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    result = to_statistics([moments(x, 1)])
    assert result["norm"][0] == pytest.approx(float(x.double().norm()), rel=1e-10)
    assert result["dead_channels"][0] == 0
    assert float(safe_norm(x)) == pytest.approx(float(x.double().norm()), rel=1e-10)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_counted_and_shows_in_the_norm(bad):
    x = torch.ones(2, 3, 2, 2)
    x[1, 2, 0, 1] = bad
    result = to_statistics([moments(x, 1)])
    assert result["nonfinite"][0] == 1
    assert not math.isfinite(result["norm"][0])
    assert not math.isfinite(result["abs_max"][0])


@pytest.mark.parametrize("x", [torch.zeros(0, 3), torch.arange(3)])
def test_empty_and_integer_tensors_are_refused(x):
    with pytest.raises(TypeError, match="non-empty floating-point tensor"):
        moments(x, None)


def test_complex_tensors_have_the_moments_of_their_magnitudes():
    x = torch.complex(torch.randn(4, 3, 5), torch.randn(4, 3, 5))
    (found, expected) = (to_statistics([moments(one, 1)]) for one in (x, x.abs()))
    for name, values in expected.items():
        assert found[name][0] == values[0], name
