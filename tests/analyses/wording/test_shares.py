"""Shares of a whole that noise drives out of 0 to 100 % are said in words."""

import pytest

from analyses.result import Estimate
from analyses.wording.shares import Reach, reach_of_share, share_text, share_with_interval

NOTHING = "nothing that can be told from noise"
EVERYTHING = "everything, as far as noise lets one tell"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((54.3, 51.2, 57.9), "54.3\u00a0% (95\u00a0% interval 51.2 to 57.9)"),
        ((45.0, -16.0, 62.0), "45\u00a0% (95\u00a0% interval 0 to 62)"),
        ((62.0, -119.0, 118.0), "62\u00a0% (95\u00a0% interval 0 to 100)"),
        ((-5.2, -44.0, 31.0), f"{NOTHING} (95\u00a0% interval 0 to 31)"),
        ((0.0, None, None), f"{NOTHING} (no interval)"),
        ((-28.0, None, 55.0), f"{NOTHING} (95\u00a0% interval up to 55)"),
        ((130.0, 60.0, 180.0), f"{EVERYTHING} (95\u00a0% interval 60 to 100)"),
        # Of more than noise, the numbers are kept: re-estimation adds movement.
        ((-90.0, -140.0, -40.0), "-90\u00a0% (95\u00a0% interval -140 to -40)"),
    ],
)
def test_a_share_is_a_number_where_one_can_be_and_words_elsewhere(numbers, words):
    assert share_with_interval(*numbers) == words
    assert Estimate("share", *numbers, unit="%", of_whole=True).words == words


def test_numbers_of_a_share_are_those_computed():
    one = Estimate("share", -28.0, -184.0, 55.0, unit="%", of_whole=True)
    assert one.numbers == "-28\u00a0% (95\u00a0% interval -184 to 55)"


def test_a_difference_may_be_negative():
    assert Estimate("gap", -28.0, -84.0, 55.0, unit="%").words.startswith("-28\u00a0%")


def test_a_share_alone():
    assert [share_text(one) for one in (-0.1, 0.805, 1.2)] == [NOTHING, "80.5 %", EVERYTHING]
    assert [reach_of_share(one) for one in (0, 50, 100, 101)] == [
        Reach.NOTHING, Reach.PART, Reach.PART, Reach.EVERYTHING,
    ]  # fmt: skip
