"""Moments of several tensors taken together are those of all their elements."""

import math

import pytest
import torch

from gradflow.hooks.processes.wholes import whole_moments
from gradflow.hooks.reduction import definition
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS

WHOLE = tuple(one.name for one in TENSOR_STATISTICS if not one.by_channel)
BY_CHANNEL = tuple(one.name for one in TENSOR_STATISTICS if one.by_channel)
pytestmark = pytest.mark.usefixtures("backend")


def test_moments_beside_each_other_are_those_of_all_channels():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 7, 4, generator=generator).relu_()
    x[0, 0, 0], x[:, 6] = torch.inf, 0.0
    parts = [moments(part, 1, histogram=True) for part in x.split([2, 1, 4], dim=1)]
    beside = parts[0].beside(parts[1]).beside(parts[2])
    whole = moments(x, 1, histogram=True)
    assert (beside.channels, beside.elements, beside.batch_size) == (7, 140, 5)
    assert torch.equal(beside.magnitudes, whole.magnitudes)
    found = to_statistics([beside])
    for name, values in to_statistics([whole]).items():
        assert found[name] == pytest.approx(values, rel=1e-12, nan_ok=True), name


def test_moments_of_different_parts_are_of_an_unknown_part_together():
    first, second = moments(torch.ones(2, 3), 1), moments(torch.ones(2, 3), 1)
    assert first.join(second).part is Part.WHOLE
    second.part = Part.CHANNELS
    assert first.join(second).part is Part.UNKNOWN
    first.part = Part.CHANNELS
    assert first.join(second).part is Part.CHANNELS


def test_joined_moments_are_those_of_the_concatenated_batch():
    generator = torch.Generator().manual_seed(6)
    first = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    second = 5 + torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    joined = moments(first, 1).join(moments(second, 1))
    whole = moments(torch.cat([first, second]), 1)
    assert joined.batch_size == 6
    for name, values in to_statistics([joined]).items():
        assert values[0] == pytest.approx(to_statistics([whole])[name][0], rel=1e-12), name


@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 5), (2, 7)), ((3, 4, 2), (5, 6)), ((6, 1), (6,)), ((4,), (2, 3, 5)), ((2, 3), (2, 3))],
)
def test_tensors_with_other_channels_are_joined_to_one_without(first, second):
    generator = torch.Generator().manual_seed(8)
    x, y = (torch.randn(shape, generator=generator).double() for shape in (first, second))
    x += 3 * torch.arange(first[-1])  # means that differ between channels
    y = (y - 1).relu()
    parts = [moments(one, 1 if one.dim() > 1 else None, histogram=True) for one in (x, y, y)]
    if first == second:
        parts[1] = moments(y, None, histogram=True)
    joined = parts[0].join(parts[1]).join(parts[2])
    elements = torch.cat([one.flatten() for one in (x, y, y)])
    assert (joined.elements, joined.batch_size) == (len(elements), len(x) + 2 * len(y))
    assert torch.equal(joined.magnitudes, moments(elements, None, histogram=True).magnitudes)
    found = {name: values[0] for name, values in to_statistics([joined]).items()}
    for name in WHOLE:
        expected = float(getattr(definition, name)(elements))
        assert found[name] == pytest.approx(expected, rel=1e-11), name
    assert all(math.isnan(found[name]) for name in BY_CHANNEL)


def test_parts_of_channels_that_differ_in_number_make_the_whole_of_both_tensors():
    generator = torch.Generator().manual_seed(9)
    x, y = (torch.randn(2, channels, generator=generator).double() for channels in (5, 7))
    by_process = [
        (moments(mine, 1), moments(other, 1))
        for mine, other in zip(x.split([2, 3], 1), y.split([3, 4], 1), strict=True)
    ]
    for one in sum(by_process, ()):
        one.part = Part.CHANNELS
    joined = [first.join(second) for first, second in by_process]
    (part,) = {one.part for one in joined}
    whole = whole_moments([((0, place), one) for place, one in enumerate(joined)], part)
    assert whole.batch_size == 4
    found = to_statistics([whole])
    for name in WHOLE:
        expected = float(getattr(definition, name)(torch.cat([x.flatten(), y.flatten()])))
        assert found[name][0] == pytest.approx(expected, rel=1e-11), name
