"""A folder is found by its path, or by its name in the runs folder."""

from pathlib import Path

import pytest

from gradflow.errors import RunError
from gradflow.runs.reading.locating import find_folder, name_for_commands, newest_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter


def write_run(folder: Path, created: str = "2025-05-03T14:05:09+00:00") -> Path:
    RunWriter(folder, {"created": created, "network": "plain34", "seed": 1}).close("complete")
    return folder


def test_newest_goes_by_the_date_of_creation_not_of_the_file(tmp_path):
    newest = write_run(tmp_path / "a", "2025-06-01T00:00:00+02:00")
    write_run(tmp_path / "b", "2025-05-31T21:59:59+00:00")
    ExperimentWriter(tmp_path / "c", {"created": "2024-01-01T00:00:00+00:00", "runs": []})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.json").write_text("{damaged")
    assert newest_experiment(tmp_path) == newest


def test_runs_of_an_experiment_are_no_candidates_of_their_own(tmp_path):
    ExperimentWriter(tmp_path / "trial", {"created": "2024-01-01T00:00:00+00:00", "runs": ["x"]})
    write_run(tmp_path / "trial" / "x")
    assert newest_experiment(tmp_path) == tmp_path / "trial"


def test_no_experiment_is_a_sentence_that_says_how_to_record_one(tmp_path):
    with pytest.raises(RunError, match=r"there is no experiment in .*train_and_trace"):
        newest_experiment(tmp_path)


def test_a_path_comes_before_a_name_in_the_runs_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = write_run(tmp_path / "runs" / "mine")
    assert find_folder(Path("mine"), tmp_path / "runs") == inside
    write_run(tmp_path / "mine")
    assert find_folder(Path("mine"), tmp_path / "runs") == Path("mine")


def test_a_folder_that_holds_no_run_does_not_hide_the_one_that_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    inside = write_run(tmp_path / "runs" / "mine")
    assert find_folder(Path("mine"), tmp_path / "runs") == inside


@pytest.mark.parametrize("name", ["mine", "trial/plain34-seed1"])
def test_a_missing_folder_is_one_sentence(tmp_path, name):
    with pytest.raises(RunError, match=f"there is no folder {name}, and none in "):
        find_folder(Path(name), tmp_path)


def test_the_name_in_a_command_finds_the_folder_again(tmp_path):
    runs = tmp_path / "runs"
    ExperimentWriter(runs / "trial", {"runs": ["x"]})
    for folder in (write_run(runs / "trial" / "x"), runs / "trial", write_run(runs / "alone")):
        assert find_folder(Path(name_for_commands(folder)), runs) == folder
    assert name_for_commands(runs / "trial" / "x") == "trial/x"
