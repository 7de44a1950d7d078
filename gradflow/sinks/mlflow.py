"""Writes to MLflow."""

import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gradflow.sinks.libraries import load, require
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink, SinkRun

# The most metrics that MLflow takes at once.
_AT_ONCE = 1000
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_\-./ ]")


class MLflow(Sink):
    """Writes scalars to MLflow.

        gradflow.sinks.MLflow("sqlite:///mlflow.db", experiment="mine")

    MLflow's names may hold letters, digits and `_-./ `: any other character is written as a colon
    and the two hexadecimal digits of each of its bytes, so `relu#2` is `relu:232`. Histograms are
    left out. Takes also what `Sink` takes.

    Args:
        tracking_uri: the server or store; by default the one that MLflow takes.
        experiment: the name of the experiment; it is made if there is none.
        run_id: the run to write to, which is not ended. By default it is the run under way
            (`mlflow.start_run()`) where the tracer is entered, or else a new one.

    Raises `ConfigurationError` if mlflow is missing or too old.
    """

    kind: ClassVar[str] = "MLflow"
    takes_histograms: ClassVar[bool] = False

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "gradflow",
        run_id: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require("mlflow", "2.16", "mlflow", "mlflow-skinny")
        self._uri = tracking_uri
        self._experiment = experiment
        self._given = run_id
        self._run_id = run_id
        self._client: Any = None

    def attach(self) -> None:
        """Look up the run under way, which MLflow knows only in the thread that began it."""
        mlflow = sys.modules.get("mlflow")
        self._run_id = self._given
        if self._given is None and self._uri is None and mlflow is not None:
            active = mlflow.active_run()
            self._run_id = None if active is None else active.info.run_id
        self._is_own = self._run_id is None

    def open(self, run: SinkRun) -> None:
        """Begin a run, unless there is one."""
        mlflow = load("mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=self._uri)
        self._metric = load("mlflow.entities").Metric
        if self._run_id is None:
            experiment = self._client.get_experiment_by_name(self._experiment)
            identity = (
                self._client.create_experiment(self._experiment)
                if experiment is None
                else experiment.experiment_id
            )
            self._run_id = self._client.create_run(identity, run_name=run.name).info.run_id
            for name, value in run.settings.items():
                self._client.log_param(self._run_id, _allowed(name), str(value)[:500])
        self.place = f"{self._uri or mlflow.get_tracking_uri()}, run {self._run_id}"

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Log the numbers of a step, as many at once as MLflow takes."""
        now = int(time.time() * 1000)
        metrics = [
            self._metric(_allowed(name), value, now, step) for name, value in scalars.items()
        ]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _AT_ONCE])

    def add_files(self, paths: Iterable[Path]) -> None:
        """Put the files among the run's artifacts."""
        for path in paths:
            self._client.log_artifact(self._run_id, str(path))

    def close(self) -> None:
        """End the run, unless it was there before."""
        if self._is_own and self._run_id is not None:
            self._client.set_terminated(self._run_id)


def _allowed(name: str) -> str:
    """`name` with a code in place of each character that MLflow refuses."""
    return _NOT_ALLOWED.sub(
        lambda found: "".join(f":{byte:02x}" for byte in found.group().encode()), name
    )
