"""A result is computed once for each run or table and arguments, and forgotten with it."""

import gc

import pandas as pd
import pytest

from analyses.reading.once import once_per, once_per_run
from gradflow.runs.reading.run import Run


@pytest.fixture
def computed():
    return []


@pytest.fixture
def counted(computed):
    @once_per_run
    def count(run: Run, table: str = "predictions") -> str:
        computed.append((run.network, table))
        if table == "none":
            raise ValueError("none")
        return f"{run.network} {table}"

    return count


def a_run(folder, network="plain"):
    return Run(folder, {"network": network})


def test_second_call_returns_the_same_without_computing(tmp_path, counted, computed):
    run = a_run(tmp_path)
    assert counted(run) is counted(run) == "plain predictions"
    assert counted(run, "recalibration") == "plain recalibration"
    assert computed == [("plain", "predictions"), ("plain", "recalibration")]


def test_equal_runs_are_computed_each(tmp_path, counted, computed):
    first, second = a_run(tmp_path), a_run(tmp_path)
    assert first == second
    assert counted(first) == counted(second)
    assert len(computed) == 2


def test_a_run_in_the_place_of_another_does_not_get_its_result(tmp_path, counted):
    for number in range(5):
        run = a_run(tmp_path, f"net{number}")
        assert counted(run) == f"net{number} predictions"
        del run
        gc.collect()


def test_an_error_is_raised_each_time(tmp_path, counted, computed):
    run = a_run(tmp_path)
    for _ in range(2):
        with pytest.raises(ValueError, match="none"):
            counted(run, "none")
    assert len(computed) == 2


def test_a_table_is_looked_at_once_and_its_copy_again(computed):
    @once_per
    def rows(table: pd.DataFrame) -> int:
        computed.append(len(table))
        return len(table)

    table = pd.DataFrame({"step": [1, 2]})
    assert rows(table) == rows(table) == 2
    assert computed == [2]
    assert rows(table.iloc[:1]) == 1
    assert rows(table.copy()) == 2
    assert computed == [2, 1, 2]
