"""Trackio's local store, read back by Trackio."""

import pytest

from gradflow.sinks import Trackio


def test_values_are_those_of_the_run(train, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    run, _ = train(Trackio("mine", quantities=["gradient_norm", "gradient_magnitudes"]))
    known = expected(run, "gradients", "norm", "gradient_norm")
    logged = storage.get_logs("mine", "run")
    got = {
        (name, row["step"]): value
        for row in logged
        for name, value in row.items()
        if name.startswith("gradflow/")
    }
    assert got == known
    assert run.description["sinks"][0]["place"] == "project mine, run run"


def test_a_training_that_is_resumed_goes_on_with_the_same_run(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    (tmp_path / "experiment.json").write_text("{}")
    train(Trackio(quantities="step_gradient_norm"))
    run, _ = train(Trackio(quantities="step_gradient_norm"), resume={})
    # The experiment is the project of its runs.
    assert storage.get_runs(tmp_path.name) == ["run"]
    logged = storage.get_logs(tmp_path.name, "run")
    assert len([row for row in logged if "gradflow/step_gradient_norm" in row]) == 12
    (entry,) = run.description["sinks"]
    assert (entry["project"], entry["run"]) == (tmp_path.name, "run")
