"""The progress of a recording, read from its folder while it is written."""

from pathlib import Path

import pytest

from gradflow.errors import RunError
from gradflow.runs.reading.progress import progress_of, recorded_files
from gradflow.runs.writing.run import ExperimentWriter, RunWriter


def write_run(folder: Path, **description) -> RunWriter:
    return RunWriter(folder, {"network": "plain18", **description})


def append_epoch(writer: RunWriter, epoch: int) -> None:
    last = 10 * epoch - 1
    writer.append("epochs", {"epoch": [epoch], "step": [last]}, last - 9, last)


def test_single_run_counts_its_epochs(tmp_path):
    writer = write_run(tmp_path / "run", configuration={"epochs": 3})
    assert progress_of(tmp_path / "run").epochs_text == "epoch 0 of 3"
    append_epoch(writer, 1)
    append_epoch(writer, 2)
    progress = progress_of(tmp_path / "run")
    assert (progress.epochs_text, progress.ended, progress.outcome) == (
        "epoch 2 of 3", False, "training goes on",
    )  # fmt: skip
    writer.close("complete")
    progress = progress_of(tmp_path / "run")
    assert (progress.ended, progress.outcome) == (True, "training has ended")


def test_run_without_planned_epochs_shows_no_total(tmp_path):
    append_epoch(write_run(tmp_path / "run"), 1)
    assert progress_of(tmp_path / "run").epochs_text == "epoch 1"


def test_experiment_counts_all_its_runs_started_or_not(tmp_path):
    ExperimentWriter(tmp_path / "trial", {"runs": ["a", "b"]})
    first = write_run(tmp_path / "trial" / "a", configuration={"epochs": 2})
    append_epoch(first, 1)
    first.close("complete")
    progress = progress_of(tmp_path / "trial")
    assert (progress.epochs_text, progress.ended) == ("1 of 4 epochs in 2 runs", False)
    second = write_run(tmp_path / "trial" / "b", configuration={"epochs": 2})
    assert not progress_of(tmp_path / "trial").ended
    second.close("complete")
    assert progress_of(tmp_path / "trial").ended


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("interrupted", "training was interrupted"), ("failed", "training failed")],
)
def test_run_that_broke_off_ends_the_experiment(tmp_path, status, outcome):
    ExperimentWriter(tmp_path / "trial", {"runs": ["a", "b"]})
    write_run(tmp_path / "trial" / "a").close(status)
    progress = progress_of(tmp_path / "trial")
    assert (progress.ended, progress.outcome) == (True, outcome)


def test_another_run_that_still_trains_keeps_the_experiment_open(tmp_path):
    ExperimentWriter(tmp_path / "trial", {"runs": ["a", "b"]})
    write_run(tmp_path / "trial" / "a").close("failed")
    write_run(tmp_path / "trial" / "b")
    assert not progress_of(tmp_path / "trial").ended


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no folder"):
        progress_of(tmp_path / "absent")


def test_files_change_with_every_part_and_with_the_description(tmp_path):
    folder = tmp_path / "run"
    assert recorded_files(folder) == frozenset()
    seen = set()
    writer = write_run(folder)
    seen.add(recorded_files(folder))
    append_epoch(writer, 1)
    seen.add(recorded_files(folder))
    writer.close("complete")
    seen.add(recorded_files(folder))
    assert len(seen) == 3


def test_files_of_an_experiment_are_those_of_its_runs(tmp_path):
    ExperimentWriter(tmp_path / "trial", {"runs": ["a"]})
    append_epoch(write_run(tmp_path / "trial" / "a"), 1)
    names = {Path(name).as_posix() for name, _, _ in recorded_files(tmp_path / "trial")}
    part = "a/epochs/part-0000000000-0000000009.parquet"
    assert names == {"experiment.json", "a/run.json", part}


def test_reports_and_parts_that_are_being_written_change_nothing(tmp_path):
    folder = tmp_path / "run"
    append_epoch(write_run(folder), 1)
    before = recorded_files(folder)
    (folder / "report.html").write_text("a report")
    (folder / "epochs" / ".part-0000000010-0000000019.parquet.1.tmp").write_bytes(b"PAR1")
    assert recorded_files(folder) == before
    assert progress_of(folder).epochs == 1
