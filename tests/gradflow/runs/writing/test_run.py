"""A run interrupted at any point of writing is readable without loss, and can be resumed."""

from pathlib import Path

import pandas as pd
import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.format.manifest import MANIFEST_FILE, read_manifest
from gradflow.runs.writing.run import RunWriter

EPOCHS = 4
TABLES = ("gradients", "predictions")


def test_interruption_at_every_point_loses_and_doubles_nothing(
    tmp_path, small_run, merging, monkeypatch, unflushed
):
    merging(2)
    whole = small_run.tables(small_run.record(tmp_path / "whole", EPOCHS, TABLES))
    at, interrupted = 0, True
    while interrupted:
        at += 1
        writer = RunWriter(tmp_path / f"{at}", {})
        done = []
        try:
            with small_run.interrupted(monkeypatch, at):
                small_run.write(writer, 1, EPOCHS, TABLES, done)
            interrupted = False
        except small_run.interruption:
            writer.release()
        for name, frame in small_run.tables(writer.folder).items():
            pd.testing.assert_frame_equal(frame, whole[name].iloc[: len(frame)], check_exact=True)
            epochs = [epoch for table, epoch in done if table == name]
            assert set(epochs) <= set(frame["epoch"]), "a row that was recorded is lost"
        if interrupted:
            epoch = 1 + sum(name == TABLES[-1] for name, _ in done)
            go_on(writer.folder, epoch, small_run)
            for name, frame in small_run.tables(writer.folder).items():
                pd.testing.assert_frame_equal(frame, whole[name], check_exact=True)
    assert at > 60


def go_on(folder, epoch, small_run):
    step = (epoch - 1) * small_run.steps
    with RunWriter.resume(folder, epoch=epoch, step=step) as writer:
        small_run.write(writer, epoch, EPOCHS, TABLES)


def test_a_run_has_a_manifest_from_its_beginning(tmp_path):
    with RunWriter(tmp_path / "run", {}) as writer:
        assert read_manifest(writer.folder).exists


def test_folder_of_a_run_that_lost_its_description_is_refused(tmp_path, small_run):
    folder = small_run.record(tmp_path / "run", 1)
    (folder / "run.json").unlink()
    with pytest.raises(RunError, match=r"has lost its run\.json"):
        RunWriter(folder, {})


def test_folder_in_which_a_run_was_about_to_begin_is_taken(tmp_path):
    (tmp_path / MANIFEST_FILE).touch()
    (tmp_path / ".lock").touch()
    RunWriter(tmp_path, {"network": "net"}).close("complete")
    assert gradflow.open_run(tmp_path).network == "net"


def test_resuming_forgets_what_was_set_aside_of_the_rows_that_are_recorded_again(
    tmp_path, small_run
):
    folder = small_run.record(tmp_path / "run", 2)
    with RunWriter.reopen(folder) as writer:
        entries = [{"file": "a", "first_step": 0}, {"file": "b", "first_step": 2}]
        writer.describe(set_aside=entries)
    RunWriter.resume(folder, epoch=2, step=2).release()
    assert gradflow.open_run(folder).description["set_aside"] == entries[:1]


def test_a_folder_called_like_an_address_is_written_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "elsewhere" / "run" / "epochs").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = Path("file:") / tmp_path.relative_to("/") / "elsewhere" / "run"
    with RunWriter(folder, {}) as writer:
        writer.append("epochs", {"epoch": [1, 2], "step": [1, 3]}, 0, 3)
    with RunWriter.resume(folder, epoch=2, step=2):
        pass
    assert gradflow.open_run(folder).epochs["step"].tolist() == [1]
    assert not list((tmp_path / "elsewhere" / "run").rglob("*.parquet"))
