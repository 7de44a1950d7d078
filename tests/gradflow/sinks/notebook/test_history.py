"""Columns of time: their means are those of all moments in them, however often they were merged."""

from itertools import pairwise

import numpy as np
import pytest

from gradflow.sinks.notebook import history
from gradflow.sinks.notebook.history import MOST_COLUMNS, RECENT, TOTAL, History, Points


def filled(moments, rows=3, **options):
    """A history of random numbers, and these: shape [moments, rows]."""
    numbers = np.random.default_rng(0).lognormal(size=(moments, rows))
    made = History(**options)
    for moment, values in enumerate(numbers):
        rows_of = {f"layer{place}": value for place, value in enumerate(values)}
        made.add(10 * moment, 1 + moment // 100, {TOTAL: values.sum(), **rows_of})
    return made, numbers


@pytest.mark.parametrize("moments", [1, 2, 191, 192, 193, 384, 385, 1000, 5000])
def test_each_column_is_the_mean_over_its_moments(moments):
    made, numbers = filled(moments)
    columns = made.columns
    assert len(columns) <= MOST_COLUMNS
    assert len(columns) >= min(moments, MOST_COLUMNS // 2)
    # They follow each other without a gap, and have equal widths but for the last.
    assert columns[0][0] == 0
    assert columns[-1][1] == 10 * (moments - 1)
    assert all(a[1] + 10 == b[0] for a, b in pairwise(columns))
    assert len({last - first for first, last, _ in columns[:-1]}) <= 1
    got = made.means(0, len(columns))
    for (first, last, epoch), values in zip(columns, got, strict=True):
        expected = numbers[first // 10 : last // 10 + 1]
        np.testing.assert_allclose(values, [expected.sum(axis=1).mean(), *expected.mean(axis=0)])
        assert epoch == 1 + last // 1000


def test_rows_of_gradients_are_in_the_order_of_the_forward_pass():
    assert filled(2)[0].names == ["layer0", "layer1", "layer2"]
    assert filled(2, is_backward=True)[0].names == ["layer2", "layer1", "layer0"]


def test_magnitudes_count_and_what_is_not_finite_stays():
    made = History()
    made.add(0, 1, {"a": -2.0, "b": np.nan, "c": np.inf, "d": 0.0})
    assert made.means(0, 1)[0].tolist() == [
        None,
        2.0,
        pytest.approx(np.nan, nan_ok=True),
        np.inf,
        0,
    ]


def test_rows_may_be_missing_and_come_later():
    made = History()
    for moment in range(2 * MOST_COLUMNS):
        made.add(moment, 1, {"a": 1.0, **({"b": 3.0} if moment % 4 == 0 and moment > 99 else {})})
    got = made.means(0, len(made.columns))
    assert got[:, 1].tolist() == [1.0] * len(got)
    with_b = {place for place, value in enumerate(got[:, 2].tolist()) if value is not None}
    assert with_b == {moment // 2 for moment in range(100, 2 * MOST_COLUMNS, 4)}
    assert set(got[:, 2].compressed()) == {3.0}


def test_values_of_one_moment_may_come_one_after_the_other():
    made = History()
    made.add(1, 1, {"a": 1.0})
    made.add(1, 1, {"b": 2.0})
    made.add(2, 2, {"a": 3.0})
    assert made.columns == [(1, 1, 1), (2, 2, 2)]
    assert made.means(0, 2)[:, 1:].tolist() == [[1.0, 2.0], [3.0, None]]


def test_recent_values_are_those_of_the_last_moments():
    made, numbers = filled(50)
    np.testing.assert_allclose(made.recent(), numbers[-RECENT:].mean(axis=0))
    made.add(500, 1, {"new": 7.0})
    assert made.recent()[-1] == 7.0
    assert made.recent()[0] == pytest.approx(numbers[-RECENT + 1 :, 0].mean())


def test_many_rows_leave_fewer_columns(monkeypatch):
    monkeypatch.setattr(history, "MOST_CELLS", 1000)
    made, numbers = filled(100, rows=24)
    assert len(made.columns) == 25  # there may be 40, so each is of four moments
    assert made.means(0, 1)[0, 1] == pytest.approx(numbers[:4, 0].mean())


@pytest.mark.parametrize("moments", range(89, 101))
def test_rows_that_come_later_leave_fewer_columns(monkeypatch, moments):
    monkeypatch.setattr(history, "MOST_CELLS", 1000)
    monkeypatch.setattr(history, "FEWEST_COLUMNS", 8)
    made, numbers = filled(moments, rows=24)
    assert len(made.columns) > 20
    for moment in range(moments, moments + 30):
        made.add(10 * moment, 1, {f"more{place}": 1.0 for place in range(100)})
    columns = made.columns
    assert len(columns) <= 8
    assert columns[-1][1] == 10 * (moments + 29)
    assert len({last - first for first, last, _ in columns[:-1]}) == 1
    assert columns[-1][1] - columns[-1][0] <= columns[0][1] - columns[0][0]
    known = dict(enumerate(numbers))
    for (first, last, _), got in zip(columns, made.means(0, len(columns)), strict=True):
        within = [known[one] for one in range(first // 10, last // 10 + 1) if one in known]
        assert got[1:25].tolist() == pytest.approx(np.mean(within, axis=0)) if within else True


def test_many_points_of_a_curve_are_averaged_and_the_last_stays():
    points = Points()
    for moment in range(1001):
        points.add("loss", moment, 2.0 * moment)
    (got,) = points.by_name.values()
    assert len(got) <= history.MOST_POINTS
    assert got[-1] == (1000, 2000.0)
    assert all(y == pytest.approx(2 * x) for x, y in got)
