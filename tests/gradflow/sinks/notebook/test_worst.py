"""The worst layer is the one that a reader of the numbers would name."""

import numpy as np
import pytest

from gradflow.sinks.notebook.worst import ratio_in_words, worst_of

NAMES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("magnitudes", "expected"),
    [
        ([1, 2, 1, 1, 0.01], ("e", "1/100 of the median of all layers")),
        ([1, 2, 1, 530, 0.01], ("d", "530 times the median of all layers")),
        ([1e-12, 1, 1, 1, 1], ("a", "1/10^12 of the median of all layers")),
        ([1e-300, 1e-300, 1e-300, 1e300, 1e-300], ("d", "10^600 times the median of all layers")),
        ([1, 1, 0, 1, 1000], ("c", "zero")),
        ([1, 0, 0, 0, 1000], ("b", "zero, as 2 others are")),
        ([1, 0, 1, np.nan, 1000], ("d", "not finite")),
        ([1, np.inf, 1, np.nan, 0], ("b", "not finite, as 1 other is")),
    ],
)
def test_the_worst_layer_is_named_with_how_far_it_is(magnitudes, expected):
    assert worst_of(NAMES, np.array(magnitudes, dtype=float)) == expected


def test_layers_without_numbers_are_left_out():
    some = np.ma.array([9, 0, 1, 1, 4], mask=[True, True, False, False, False], dtype=float)
    assert worst_of(NAMES, some) == ("e", "4 times the median of all layers")


@pytest.mark.parametrize("magnitudes", [[], [3.0], np.ma.array([1.0, 2.0], mask=[True, False])])
def test_one_layer_is_not_worse_than_others(magnitudes):
    assert worst_of(NAMES, np.ma.asanyarray(magnitudes, dtype=float)) == ("", "")


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1, "1 times"), (0.5, "1/2 of"), (1234, "1,200 times"), (98765.0, "99,000 times")],
)
def test_ratios_have_two_digits(ratio, words):
    assert ratio_in_words(float(np.log10(ratio))) == words
