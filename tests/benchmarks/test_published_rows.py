import importlib.util
import math
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "published" / "rows.py"
SPEC = importlib.util.spec_from_file_location("published_rows", SOURCE)
rows = importlib.util.module_from_spec(SPEC)
sys.modules["published_rows"] = rows  # dataclasses look their module up there
SPEC.loader.exec_module(rows)


def test_mean_and_standard_error_are_those_of_the_networks():
    row = rows.compare("x", 2.0, [1.0, 2.0, 3.0], rows.Tolerance(errors=3))
    assert row.measured == 2.0
    assert row.error == pytest.approx(1 / math.sqrt(3))
    assert row.tolerance == pytest.approx(math.sqrt(3))


def test_tolerance_adds_its_three_parts():
    tolerance = rows.Tolerance(absolute=0.5, relative=0.1, errors=2)
    assert tolerance.width(-10.0, 0.25) == pytest.approx(0.5 + 1.0 + 0.5)
    assert str(tolerance) == "0.5 + 10% for finite width + 2 standard errors"


@pytest.mark.parametrize(("measured", "agrees"), [(1.09, True), (0.89, False), (math.nan, False)])
def test_a_row_agrees_within_its_tolerance_only(measured, agrees):
    assert rows.compare("x", 1.0, [measured], rows.Tolerance(absolute=0.1)).agrees is agrees


def test_table_fits_its_width_and_counts_what_agrees():
    right = rows.Row("q" * 32, -1.23456e-7, 1.23456e-7, math.nan, 1.0)
    wrong = rows.Row("other", 1.0, 2.0, 0.1, 0.5)
    text = rows.table([rows.Item("Some paper", "long words " * 20, "0.5", (right, wrong))])
    assert max(map(len, text.splitlines())) <= 80
    assert "1 of 2 agree" in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("  other")] == ["NO"]
