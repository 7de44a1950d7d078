"""Formatted numbers: rounding follows the interval, and a missing value is never 0."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from analyses.result import Estimate
from reports.document.wording import cell_text, column_texts, date_text, estimate_text

PERCENT = "95\u00a0% interval"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate("a", 54.321, 51.2, 57.9, "%"), f"54.3\u00a0% ({PERCENT} 51.2 to 57.9)"),
        (Estimate("a", 0.134, -0.005, 0.273), f"0.13 ({PERCENT} -0.01 to 0.27)"),
        (Estimate("a", 549.2, 412.4, 731.0), f"549 ({PERCENT} 412 to 731)"),
        (Estimate("a", 0.5, 0.5, 0.5), "0.5 (no spread)"),
        (Estimate("a", 1e-13, 1e-14, 1e-12), f"1.0e-13 ({PERCENT} 1.0e-14 to 1.0e-12)"),
        (Estimate("a", 3.0, 0.01, 900.0), f"3 ({PERCENT} 0.01 to 900)"),
        (Estimate("a", 2.0, 1.0, 3.0, level=0.9), "2.0 (90\u00a0% interval 1.0 to 3.0)"),
        (Estimate("a", 2.0, low=1.5), f"2.0 ({PERCENT} from 1.5 upward)"),
        (Estimate("a", 2.0, high=2.5), f"2.0 ({PERCENT} up to 2.5)"),
        (Estimate("a", 2.0), "2 (no interval)"),
        (Estimate("a", None, 1.0, 2.0), "not available"),
        (Estimate("a", float("nan")), "not available"),
        (Estimate("a", float("inf")), "not available"),
    ],
)
def test_estimate_reads_with_unit_and_interval(estimate, text):
    assert estimate_text(estimate) == text


def test_ends_of_an_interval_that_round_to_zero_have_no_sign():
    assert "-0.0" not in estimate_text(Estimate("a", 0.9, -0.001, 1.8))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (np.nan, "\u2013"),
        (pd.NA, "\u2013"),
        (np.bool_(True), "yes"),
        (False, "no"),
        (0, "0"),
        (np.int64(-12), "-12"),
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (float("inf"), "inf"),
        (["a", None, 3], "a, \u2013, 3"),
        ("<b>", "<b>"),
    ],
)
def test_cell_keeps_what_it_holds(value, text):
    assert cell_text(value) == text


def test_date_reads_the_same_in_every_locale():
    assert date_text(datetime(2025, 5, 3, 14, 5, tzinfo=UTC)) == "3 May 2025, 14:05 UTC"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, 0.64, 0.0278, np.nan, 0.0], ["1.000", "0.640", "0.028", "\u2013", "0.000"]),
        ([4.184, 12.8], ["4.2", "12.8"]),
        ([1234.5, 10.0], ["1,234", "10"]),
        ([0.5, 4e-7], ["0.5", "4.0e-7"]),
        ([0.0, 0.0], ["0", "0"]),
        ([np.inf, 1.0], ["inf", "1"]),
        ([1, 20], ["1", "20"]),
        (["a", None], ["a", "\u2013"]),
    ],
)
def test_floats_of_a_column_share_their_decimals_unless_one_is_too_small(values, texts):
    assert column_texts(pd.Series(values)) == texts
