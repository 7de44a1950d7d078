"""MLflow's file store, read back by MLflow's own client."""

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
