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
