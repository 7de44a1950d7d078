"""A table has the moments of each tensor, and tables together the statistics of each."""

import numpy as np
import pytest
import torch

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import MISSING, Habit
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.hooks.reduction.statistics.tables import MomentTable, packed, statistics_of

pytestmark = pytest.mark.skipif(cpu.loops_module() is None, reason="needs the compiled loops")


def tensors():
    torch.manual_seed(0)
    return {
        "a": (torch.randn(2, 3, 4), 1),
        "b": (torch.randn(5, 6), None),
        "c": (torch.randn(2, 3, 4).double(), 2),
        "large": (torch.randn(2, 40_000), 1),
        "d": (torch.randn(2, 7), 1),
    }


def table(histogram=False):
    reductions, store = Reductions(), {}
    for name, (x, axis) in tensors().items():
        habit = Habit(name)
        habit.tried = True
        store[name] = reductions.reduce(x, axis, histogram, habit)
    reductions.flush()
    return packed({**store, "missing": MISSING})


def test_a_table_has_the_moments_of_each_tensor_and_leaves_out_what_is_missing():
    found = table(histogram=True)
    assert list(found) == list(tensors())
    assert len(found) == 5
    for name, (x, axis) in tensors().items():
        expected = moments(x, axis, histogram=True)
        assert np.array_equal(found[name].values, expected.values)
        assert torch.equal(dict(found.magnitudes())[name], expected.magnitudes)
    with pytest.raises(KeyError):
        found["missing"]


def test_statistics_of_several_tables_are_those_of_each_tensor():
    given = [moments(x, axis) for x, axis in tensors().values()]
    alone = MomentTable.of(dict(zip("abcde", given, strict=True)))
    found, batch_sizes, have_channels = statistics_of([table(), alone])
    expected = to_statistics(given * 2)
    for name, values in expected.items():
        assert np.array_equal(found[name], values, equal_nan=True), name
    assert batch_sizes.tolist() == [2, 5, 2, 2, 2] * 2
    assert have_channels.tolist() == [True, False, True, True, True] * 2


def of_shapes(*shapes):
    """A table of tensors of those shapes, with channels along axis 1, reduced together."""
    reductions, store = Reductions(), {}
    for number, shape in enumerate(shapes):
        habit = Habit(str(number))
        habit.tried = True
        x = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        store[str(number)] = reductions.reduce(x, 1, False, habit)
    reductions.flush()
    return packed(store)


@pytest.mark.parametrize(
    "tables",
    [
        lambda: [of_shapes((2, 3), (4, 3))] * 3,
        lambda: [of_shapes((2, 3), (4, 3)), of_shapes((2, 3), (4, 3)), of_shapes((2, 4), (4, 3))],
        lambda: [of_shapes((2, 3)), MomentTable.of({}), of_shapes((2, 3), (4, 3))],
        lambda: [MomentTable.of({"0": moments(torch.randn(n, 5), 1)}) for n in (2, 2, 3)],
    ],
)
def test_tables_that_are_alike_and_others_have_the_statistics_of_each_tensor(tables):
    given = tables()
    every = [one.at(row) for one in given for row in range(len(one))]
    found, batch_sizes, _ = statistics_of(given)
    for name, values in to_statistics(every).items():
        assert np.array_equal(found[name], values, equal_nan=True), name
    assert batch_sizes.tolist() == [one.batch_size for one in every]
