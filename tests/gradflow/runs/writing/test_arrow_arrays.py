"""Columns become the arrays that pyarrow itself makes of them, and pandas is not loaded."""

import numpy as np
import pyarrow as pa
import pytest

from gradflow.runs.writing.arrow_arrays import to_array

NAMES = pa.dictionary(pa.int32(), pa.string())


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def arrays(values):
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = np.array(value, dtype=np.int64)
    return array


EQUAL = {
    "floats": (np.array([1.5, np.nan, -np.inf]), pa.float64()),
    "masked floats": (np.ma.array([1.5, np.nan, 3.0], mask=[1, 0, 0]), pa.float64()),
    "floats with stride": (np.arange(8.0)[::2], pa.float64()),
    "many masked": (np.ma.array(np.arange(100.0), mask=np.arange(100) % 3 == 0), pa.float64()),
    "whole numbers": (np.ma.array([1, 2, 3]), pa.int64()),
    "narrow whole numbers": (np.ma.array([1, 2**40, 3], mask=[0, 1, 0]), pa.int32()),
    "whole numbers for fractions": (np.array([1, 2]), pa.float64()),
    "small fractions": (np.array([0.5, 2], dtype=np.float32), None),
    "booleans": (np.ma.array([True, False, True], mask=[0, 1, 0]), pa.bool_()),
    "names": (np.ma.array(objects(["b", "a", "b", "é"]), mask=False), NAMES),
    "masked names": (np.ma.array(objects(["", "a", "", "a"]), mask=[1, 0, 0, 0]), NAMES),
    "no names": (objects([]), NAMES),
    "the same names again": (objects(["b", "a", "é"] * 4), NAMES),
    "one name again": (objects(["b"] * 4), NAMES),
    "the same names again but for the end": (objects(["b", "a", "b", "a", "b"]), NAMES),
    "the same names again in another order": (objects(["b", "a", "c", "b", "c", "a"]), NAMES),
    "the same names again, one masked": (
        np.ma.array(objects(["b", "a"] * 3), mask=[1, 0, 0, 0, 1, 1]),
        NAMES,
    ),
    "the same texts again": (objects(["b", "a"] * 3), pa.string()),
    "the same names again, and none": (objects(["b", None] * 3), NAMES),
    "only masked names": (np.ma.array(objects(["", ""]), mask=True), NAMES),
    "names and none": (objects(["a", None, "a"]), NAMES),
    "counts": (np.ma.array(arrays([[1, 2], [], [3]]), mask=False), pa.list_(pa.int64())),
    "counts as lists": (objects([[1, 2], [], [3, 4, 5]]), pa.list_(pa.int64())),
    "list of floats": ([1.0, None, float("nan")], None),
    "list of whole numbers": ([1, None, 3], pa.int32()),
    "list of large numbers": ([1, 2**63 - 1], None),
    "list of texts": (["a", "b", "a"], None),
    "list of texts and none": (["a", None], None),
    "list of names": (["a", None, "b", "a"], NAMES),
    "range": (range(1, 4), pa.int64()),
    "list of both": ([1, 2.5], None),
    "list of truths": ([True, None], None),
    "list of nothing": ([None, None], pa.float64()),
    "list of nothing of any kind": ([None, None], None),
    "list of no names": ([None], NAMES),
    "empty list": ([], pa.string()),
    "bytes": ([b"\x00\xff", None], pa.binary()),
    "floats in lists": ([[1.5], None], pa.list_(pa.float32())),
}


@pytest.mark.parametrize("case", EQUAL)
def test_array_is_that_of_pyarrow(case):
    values, kind = EQUAL[case]
    found, expected = to_array(values, kind), pa.array(values, type=kind)
    found.validate(full=True)
    assert found.type == expected.type
    if isinstance(found, pa.DictionaryArray):
        assert found.indices.equals(expected.indices)
        assert found.dictionary.equals(expected.dictionary)
    # nan differs from itself, so texts are compared.
    assert repr(found.to_pylist()) == repr(expected.to_pylist())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([2**40]), pa.int32()),
        ([2**70], pa.int64()),
        (objects(["a", 1]), NAMES),
        (["a"], pa.float64()),
    ],
)
def test_what_does_not_fit_is_refused_as_by_pyarrow(values, kind):
    with pytest.raises((pa.ArrowException, TypeError, ValueError, OverflowError)) as expected:
        pa.array(values, type=kind)
    with pytest.raises(expected.type):
        to_array(values, kind)


def test_a_run_is_written_without_pandas(tmp_path, in_fresh_process):
    code = """
import sys, torch, gradflow
model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with gradflow.Tracer(model, "run", optimizer=optimizer, histograms=True) as tracer:
    for epoch in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        tracer.end_epoch(train_loss=0.5, note="begun", val_loss=None)
sys.exit("pandas was loaded" if "pandas" in sys.modules else 0)
"""
    done = in_fresh_process(["-c", code], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
