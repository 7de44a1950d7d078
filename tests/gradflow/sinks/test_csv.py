"""CSV files, read back by the standard library and pandas."""

import csv

import pandas as pd
import pytest

from gradflow.sinks import CSV
from gradflow.sinks.sink import SinkRun


def test_every_number_has_a_line_with_all_its_digits(train, expected):
    run, _ = train(CSV(quantities="gradient_norm"))
    with (run.folder / "quantities.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    known = expected(run, "gradients", "norm", "gradient_norm")
    assert {(one["name"], int(one["step"])): float(one["value"]) for one in lines} == known


def test_a_run_that_goes_on_keeps_the_lines_before(tmp_path):
    path = tmp_path / "mine.csv"
    for first, value in ((0, 1.0), (3, 2.0)):
        sink = CSV(path)
        sink.open(SinkRun(tmp_path, first_step=first))
        for step in range(first, first + 5):
            sink.write(step, {"a": value}, {})
        sink.close()
    assert list(pd.read_csv(path).value) == [1.0] * 3 + [2.0] * 5


def test_a_file_that_cannot_be_written_is_reported(train, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.warns(UserWarning, match="taken cannot be written: Is a directory"):
        train(CSV(tmp_path / "taken"))
