import numpy as np
import pytest
import torch

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.batches import (
    BatchLayout,
    Layouts,
    MomentTable,
    packed,
    statistics_of,
)
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import MISSING, Habit
from gradflow.hooks.reduction.fused import moments, to_statistics
from gradflow.hooks.reduction.groups import geometry_of

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


def test_a_layout_is_kept_for_the_same_shapes_and_no_others():
    layouts = Layouts()
    one = [geometry_of(torch.Size(shape), 1) for shape in ((2, 3), (4, 5, 6))]
    other = [geometry_of(torch.Size(shape), 1) for shape in ((2, 3), (4, 6, 5))]
    first = layouts.of(one)
    assert layouts.of(list(one)) is first
    assert layouts.of(other) is not first
    assert layouts.of(one) is first
    assert first.ends.tolist() == [15, 36]
    assert BatchLayout(one).table[:, 1:].tolist() == [list(geometry[:4]) for geometry in one]
