"""MLflow's file store, read back by MLflow's own client."""

from types import SimpleNamespace

import pytest

from gradflow.sinks import MLflow
from gradflow.sinks.sink import SinkRun

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def store(tmp_path, monkeypatch):
    # MLflow asks for it where a folder is the store.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def history(store, run_id, name):
    client = mlflow.MlflowClient(tracking_uri=store)
    return {one.step: one.value for one in client.get_metric_history(run_id, name)}


def only_run(store, experiment="gradflow"):
    client = mlflow.MlflowClient(tracking_uri=store)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run


def test_metrics_are_those_of_the_run(train, expected, store):
    configuration = {"learning_rate": 0.1}
    run, _ = train(
        MLflow(store, quantities=["gradient_norm", "step_gradient_norm"]),
        description={"configuration": configuration, "seed": 5},
    )
    found = only_run(store)
    known = expected(run, "gradients", "norm", "gradient_norm")
    known |= expected(run, "steps", "gradient_norm", "step_gradient_norm", "")
    got = {
        (name, step): value
        for name in found.data.metrics
        for step, value in history(store, found.info.run_id, name).items()
    }
    assert got == known
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params == {
        "learning_rate": "0.1",
        "seed": "5",
        "network": "Sequential",
    }
    assert found.info.run_id in run.description["sinks"][0]["place"]


def test_a_run_under_way_is_written_to_and_goes_on(train, store, monkeypatch):
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    mlflow.set_tracking_uri(store)
    with mlflow.start_run() as under_way:
        train(MLflow(quantities="step_gradient_norm"))
        assert mlflow.active_run().info.status == "RUNNING"
    mine = under_way.info.run_id
    assert len(history(store, mine, "gradflow/step_gradient_norm")) == 6


def test_names_that_mlflow_refuses_are_written_with_codes(store, tmp_path):
    sink = MLflow(store)
    sink.attach()
    sink.open(SinkRun(tmp_path))
    names = ["a/lstm[1][0]", "a/relu#2", "a/(model)", "a/relu:23", "a/relu:232", "a/\u732b"]
    sink.write(3, dict.fromkeys(names, 1.0), {})
    sink.close()
    written = set(only_run(store).data.metrics)
    assert len(written) == len(names)
    assert {"a/lstm:5b1:5d:5b0:5d", "a/relu:232", "a/relu:3a23"} <= written


def test_more_metrics_than_mlflow_takes_at_once_get_there(store, tmp_path):
    sink = MLflow(store)
    sink.attach()
    sink.open(SinkRun(tmp_path))
    sink.write(0, {f"a/{number}": float(number) for number in range(1001)}, {})
    sink.close()
    assert len(only_run(store).data.metrics) == 1001


def test_a_training_that_is_resumed_goes_on_with_the_same_run(train, store):
    first, _ = train(MLflow(store, quantities="step_gradient_norm"))
    second, _ = train(MLflow(store, quantities="step_gradient_norm"), resume={}, steps=4)
    found = only_run(store)
    assert [one.description["sinks"][0]["run"] for one in (first, second)] == [
        found.info.run_id
    ] * 2
    assert found.info.status == "FINISHED"
    assert len(history(store, found.info.run_id, "gradflow/step_gradient_norm")) == 8


def test_a_run_that_was_removed_is_begun_anew(train, store):
    first, _ = train(MLflow(store, quantities="step_gradient_norm"))
    mlflow.MlflowClient(tracking_uri=store).delete_run(first.description["sinks"][0]["run"])
    second, _ = train(MLflow(store, quantities="step_gradient_norm"), resume={})
    assert only_run(store).info.run_id == second.description["sinks"][0]["run"]


def test_a_run_of_an_experiment_is_in_the_experiment_of_that_name(train, store, tmp_path):
    (tmp_path / "experiment.json").write_text("{}")
    train(MLflow(store, quantities="step_gradient_norm"))
    assert only_run(store, tmp_path.name).info.run_name == "run"


def test_a_password_in_the_address_is_not_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow, "MlflowClient", FakeClient)
    sink = MLflow("https://me:secret@tracking.example.org/", run_id="abc")
    sink.attach()
    sink.open(SinkRun(tmp_path))
    assert sink.summary()["address"] == "https://tracking.example.org/#/experiments/7/runs/abc"
    assert "secret" not in str(sink.summary())


class FakeClient:
    """Stands for the client of a server, which says that every run is in experiment 7."""

    def __init__(self, tracking_uri):
        assert "secret" in tracking_uri

    def get_run(self, run_id):
        return SimpleNamespace(info=SimpleNamespace(experiment_id="7"))
