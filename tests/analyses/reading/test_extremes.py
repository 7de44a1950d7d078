import numpy as np
import pandas as pd

from analyses.reading.extremes import extreme_rows


def test_a_table_that_can_be_read_stays_as_it_is():
    frame = pd.DataFrame({"block": range(60), "share": range(60)})
    table = extreme_rows("shares", "The shares", frame, "share")
    assert table.title == "The shares"
    assert table.frame is frame


def test_of_a_longer_one_the_lowest_and_highest_rows_are_left_in_order():
    shares = np.random.default_rng(0).permutation(500).astype(float)
    shares[7] = np.nan
    frame = pd.DataFrame({"block": range(500), "share": shares})
    table = extreme_rows("shares", "The shares", frame, "share")
    known = np.sort(shares[~np.isnan(shares)])
    assert sorted(table.frame["share"]) == [*known[:10], *known[-10:]]
    assert table.frame["block"].is_monotonic_increasing
    assert table.title == "The shares: the 10 lowest and 10 highest of 500 by share"
