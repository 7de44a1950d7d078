"""The kernels in Triton's interpreter, on the CPU; `test_kernels.py` runs this file.

Triton reads TRITON_INTERPRET=1 when it is imported, which is why this needs a process of its own.
"""

import math
from fractions import Fraction

import pytest
import torch
from scipy import stats

from gradflow.hooks.reduction import cpu, definition, fused, kernels
from gradflow.hooks.reduction.fused import moments, to_statistics
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS

# The interpreter computes with numpy, which warns where a GPU quietly gives inf or nan.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SPECIAL = (0.0, -0.0, 1.0, -3.0, 1e-40, 1e-45, 6e-8, 65504.0, 1e30, -3e38)
WHOLE = tuple(one.name for one in TENSOR_STATISTICS if not one.by_channel)
BY_CHANNEL = tuple(one.name for one in TENSOR_STATISTICS if one.by_channel)


@pytest.fixture(autouse=True)
def only_the_kernels(monkeypatch):
    """Send tensors on the CPU to the kernels only."""

    def unwanted(*_):
        raise AssertionError("the kernels did not take this tensor")

    assert fused._kernels(torch.device("cpu")) is not None
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    monkeypatch.setattr(fused, "_on_gpu", lambda x: True)
    monkeypatch.setattr(fused, "_by_torch", unwanted)


def test_kernels_that_give_other_numbers_than_torch_are_not_used(monkeypatch):
    monkeypatch.undo()
    right = kernels.reduce
    monkeypatch.setattr(kernels, "reduce", lambda *a: right(*a) * (1 + 1e-6))
    assert fused._kernels.__wrapped__(torch.device("cpu")) is None


def test_kernels_that_give_other_fourth_powers_than_torch_are_not_used(monkeypatch):
    monkeypatch.undo()
    right = kernels.reduce

    def wrong(*arguments):
        values = right(*arguments)
        values[-4] *= 1 + 1e-6
        return values

    monkeypatch.setattr(kernels, "reduce", wrong)
    assert fused._kernels.__wrapped__(torch.device("cpu")) is None


def plain(x: torch.Tensor, axis: int | None) -> dict[str, float]:
    x = x.double()
    found = {name: float(getattr(definition, name)(x)) for name in WHOLE}
    for name in BY_CHANNEL:
        found[name] = math.nan if axis is None else float(getattr(definition, name)(x, axis))
    return found


def assert_plain(x: torch.Tensor, axis: int | None) -> None:
    result = to_statistics([moments(x, axis)])
    finite = x.double()[torch.isfinite(x)]
    unit = float(finite.abs().max()) if finite.numel() else 0.0
    for name, expected in plain(x, axis).items():
        smallest = 1e-12 * (unit**2 if name.startswith("channel_") else unit)
        assert result[name][0] == pytest.approx(expected, rel=1e-9, abs=smallest, nan_ok=True), name


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES = [(), (1,), (7,), (5, 1), (1, 5), (3, 35), (2, 3, 4), (3, 1, 5), (2, 4, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_layout_and_axis_agrees_with_the_plain_definitions(shape):
    x = normal(*shape).relu()
    if x.dim() > 1:
        x[:, 0] = 0
    for axis in (None, *range(x.dim())):
        assert_plain(x, axis)
    if x.dim() > 1:
        assert_plain(x, -1)
        assert_plain(x.transpose(0, -1).contiguous().transpose(0, -1), 1)
        assert_plain(x[:1].expand(3, *x.shape[1:]), 1)
    if x.dim() == 4:
        assert_plain(x.to(memory_format=torch.channels_last), 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf], ids=str)
def test_any_dtype_and_value_agrees_with_the_plain_definitions(dtype, bad):
    special = SPECIAL if bad is None else (*SPECIAL, bad)
    choice = torch.randint(len(special), (3, 4, 5), generator=torch.Generator().manual_seed(1))
    x = torch.tensor(special, dtype=torch.float64)[choice].to(dtype)
    for axis in (None, 1, 2):
        assert_plain(x, axis)
        assert moments(x, axis).values[-2] == (x == 0).sum()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_one_non_finite_value_is_counted_and_shows_in_its_channel_alone(dtype, bad):
    x = torch.ones(2, 3, 4, dtype=dtype)
    x[1, 2, 3] = bad
    found = moments(x, 1).values
    assert found[-1] == 1
    assert found[:2].tolist() == [8, 8]
    assert not torch.isfinite(found[[2, 5, 8]]).any()
    assert found[-3].item() == pytest.approx(abs(bad), nan_ok=True)


def test_nan_is_a_larger_magnitude_than_infinity():
    assert moments(torch.tensor([math.inf, math.nan, 1.0]), None).values[-3].isnan()


@pytest.mark.parametrize(("tile", "programs"), [(32, 4096), (32, 4), (16, 1), (64, 12)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("axis", [None, 1])
def test_statistics_do_not_depend_on_tiles_and_programs(tile, programs, layout, axis, monkeypatch):
    monkeypatch.setattr(kernels, "_TILE", tile)
    monkeypatch.setattr(kernels, "_PROGRAMS", programs)
    monkeypatch.setattr(kernels, "_SIDE_BY_SIDE", 4)
    monkeypatch.setattr(kernels, "_PARTS", 2)
    monkeypatch.setattr(kernels, "_CHANNELS", 2)
    x = normal(2, 5, 7, 9).relu()
    x[1, 4, 6, 8] = 50  # the last element lies in the last part
    assert_plain(x.to(memory_format=layout), axis)


def exact_variance(x: torch.Tensor) -> float:
    """The mean over channels (axis 1) of the variance, in rational arithmetic."""
    variances = []
    for channel in x.double().movedim(1, 0).reshape(x.shape[1], -1).tolist():
        values = [Fraction(value) for value in channel]
        mean = sum(values) / len(values)
        variances.append(sum((value - mean) ** 2 for value in values) / len(values))
    return float(sum(variances) / len(variances))


@pytest.mark.parametrize(("first", "rel"), [(1e6, 1e-13), (-1e6, 1e-10)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_mean_far_larger_than_the_deviations_costs_no_digits(first, rel, layout):
    x = (1e6 + normal(4, 2, 20, 20)).float().to(memory_format=layout)
    x[0, :, 0, 0] = first  # sums are taken about the first element: it may lie far off
    assert to_statistics([moments(x, 1)])["channel_variance"][0] == pytest.approx(
        exact_variance(x), rel=rel
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_kurtosis_beside_a_large_mean_is_that_of_scipy(layout):
    x = (1e4 + normal(4, 40, 20, 20).pow(3)).to(memory_format=layout)
    found = to_statistics([moments(x, 1)])["kurtosis"][0]
    assert found == pytest.approx(stats.kurtosis(x.numpy().ravel() - 1e4, fisher=False), rel=1e-9)


def test_equal_elements_have_no_kurtosis():
    assert math.isnan(to_statistics([moments(torch.full((3, 40, 5), 0.1), 1)])["kurtosis"][0])


def test_the_same_tensor_gives_the_same_bits():
    x = normal(3, 5, 30, 30).float()
    assert torch.equal(moments(x, 1).values, moments(x, 1).values)
