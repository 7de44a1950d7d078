"""The compiled loop gives the sums of the channels of many tensors that numpy gives."""

import numpy as np
import pytest

from gradflow.hooks.reduction.statistics import from_moments, sums

CHANNELS = [1, 2, 7, 8, 9, 10, 16, 17, 64, 128, 129, 130, 200, 1000]


def given(channels):
    """The values of tensors of so many channels, with gaps between them, and what is known."""
    generator = np.random.default_rng(0)
    counts = np.array(channels)
    ends = np.cumsum(3 * counts + 6 + 5)
    return generator.normal(size=ends[-1] + 3), ends, counts, 7.0 * counts


def by_loop(flat, ends, counts, elements):
    found = np.zeros((from_moments.SUMS, len(ends) + 3))
    sums.put(flat, ends, counts, elements, np.arange(len(ends)) + 2, found)
    assert not found[:, [0, 1, -1]].any()
    return found[:, 2:-1]


@pytest.mark.skipif(sums.loop_module() is None, reason="needs the compiled loops")
def test_the_loop_gives_the_numbers_of_numpy():
    values = given(CHANNELS)
    assert by_loop(*values) == pytest.approx(from_moments.sums_in(*values), rel=1e-13, abs=1e-13)
    values[0][40] = np.inf
    values[0][90] = np.nan
    values[0][values[1][4] - 6 - 2 * 9 : values[1][4] - 6 - 9] = 0  # the squares of nine channels
    expected = from_moments.sums_in(*values)
    assert expected[5, 4] == 9
    assert by_loop(*values) == pytest.approx(expected, rel=1e-13, abs=1e-13, nan_ok=True)


@pytest.mark.parametrize("sums_of", [from_moments.sums_in, by_loop])
def test_the_sums_are_those_of_their_definition(sums_of):
    flat, ends, counts, elements = given([5])
    found = sums_of(flat, ends, counts, elements)[:, 0]
    total, squares, deviations = flat[ends[0] - 21 : ends[0] - 6].reshape(3, 5)
    means = total / 7
    between = (means - total.sum() / 35) ** 2
    expected = [total.sum(), squares.sum(), (means**2).sum(), deviations.sum() / 7, between.sum()]
    assert found[:5] == pytest.approx(expected)
    assert found[6:].tolist() == flat[ends[0] - 6 : ends[0]].tolist()


def test_without_the_loop_numpy_gives_them(monkeypatch):
    monkeypatch.setattr(sums, "loop_module", lambda: None)
    values = given(CHANNELS)
    assert np.array_equal(by_loop(*values), from_moments.sums_in(*values))
