"""How numbers and intervals read."""

import pytest

from analyses.wording.numbers import (
    finite,
    interval_text,
    number,
    p_value,
    percent,
    points,
    share_bound,
    told_apart,
    with_interval,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01, "0.01"),
        (5.2349, "5.23"),
        (1234.5, "1,234"),
        (2.3e-5, "2.3e-5"),
        (0, "0"),
        (1e6, "1.0e6"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_fractions_and_differences():
    assert percent(0.4327) == "43.3 %"
    assert [share_bound(value) for value in (0.5, 0.05, 0.025)] == ["50 %", "5 %", "2.5 %"]
    assert points(-0.0512) == "-5.1 points"
    assert p_value(0.0004) == "p < 0.001"
    assert p_value(0.0321) == "p = 0.032"


def test_intervals_say_where_there_is_none():
    assert interval_text(0.1, 0.25, percent) == "(95 % interval 10.0 to 25.0)"
    assert interval_text(None, None) == "(no interval)"


def test_only_finite_values_pass():
    assert [finite(value) for value in (None, float("nan"), float("inf"), 2)] == [
        None,
        None,
        None,
        2,
    ]


def test_a_number_has_its_unit_once():
    wide = "(95\u00a0% interval 51.2 to 57.9)"
    assert with_interval(54.321, 51.2, 57.9, "%") == f"54.3\u00a0% {wide}"
    assert with_interval(None, 1.0, 2.0) == "not available"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((17.343, 16.372, 18.3), "17.3 (95\u00a0% interval 16.4 to 18.3)"),
        ((2.534, 2.09, 3.08), "2.5 (95\u00a0% interval 2.1 to 3.1)"),
        ((0.0013, 0.001211, 0.001439), "0.00130 (95\u00a0% interval 0.00121 to 0.00144)"),
        ((23.41, 21.6, 25.3), "23.4 (95\u00a0% interval 21.6 to 25.3)"),
        ((80.5, 70.8, 87.5), "80 (95\u00a0% interval 71 to 88)"),
        ((76.2, 41.0, 118.0), "76 (95\u00a0% interval 41 to 118)"),
    ],
)
def test_a_number_has_as_many_digits_as_its_interval_allows(numbers, text):
    assert with_interval(*numbers) == text


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (0.0781, 0.5, ("0.0781", "0.5")),
        (0.078123, 0.078124, ("0.078123", "0.078124")),
        (1234.1, 1234.2, ("1234.1", "1234.2")),
        (1 / 3, 1 / 3, ("0.333", "0.333")),
    ],
)
def test_two_numbers_that_differ_are_told_apart(first, second, said):
    assert told_apart(first, second) == said
