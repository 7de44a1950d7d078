"""Writes to MLflow."""

import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

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
        experiment: the name of the experiment, which is made if there is none; by default that of
            the experiment that the run is one of, or else `gradflow`.
        run_id: the run to write to, which is not ended. By default it is the run under way
            (`mlflow.start_run()`) where the tracer is entered; or else that of the training that is
            resumed, or a new one.

    Raises `ConfigurationError` if mlflow is missing or too old.
    """

    kind: ClassVar[str] = "MLflow"
    takes_histograms: ClassVar[bool] = False

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str | None = None,
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
            self._run_id = self._resumed(run) or self._begun(run)
        store = _without_credentials(str(self._uri or mlflow.get_tracking_uri()))
        self.place = f"{store}, run {self._run_id}"
        self.where = {"run": self._run_id, **self._whereabouts(store, run)}

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

    def tell(self, step: int, condition: str, text: str, *, begins: bool) -> None:
        """Set the sentence as a tag of the run, and log the number."""
        super().tell(step, condition, text, begins=begins)
        self._client.set_tag(self._run_id, f"gradflow.alert.{condition}", text[:500])

    def add_files(self, paths: Iterable[Path]) -> None:
        """Put the files among the run's artifacts."""
        for path in paths:
            self._client.log_artifact(self._run_id, str(path))

    def close(self) -> None:
        """End the run, unless it was there before."""
        if self._is_own and self._run_id is not None:
            self._client.set_terminated(self._run_id)

    def _begun(self, run: SinkRun) -> str:
        """The run that begins here, in its experiment."""
        name = self._experiment or run.experiment or "gradflow"
        experiment = self._client.get_experiment_by_name(name)
        identity = (
            self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        )
        begun = str(self._client.create_run(identity, run_name=run.name).info.run_id)
        for setting, value in run.settings.items():
            self._client.log_param(begun, _allowed(setting), str(value)[:500])
        return begun

    def _resumed(self, run: SinkRun) -> str | None:
        """The run that an earlier process wrote to; None if there is none any more."""
        earlier = run.earlier.get("run")
        if not isinstance(earlier, str):
            return None
        try:
            self._client.update_run(earlier, status="RUNNING")
        except Exception:  # of whatever kind the store has for a run that was removed
            return None
        return earlier

    def _whereabouts(self, store: str, run: SinkRun) -> dict[str, str]:
        """The page of the run, or else the local store."""
        if store.startswith(("http://", "https://")):
            experiment = self._client.get_run(self._run_id).info.experiment_id
            page = f"{store.rstrip('/')}/#/experiments/{experiment}/runs/{self._run_id}"
            return {"address": page}
        scheme, colon, rest = store.partition(":")
        if scheme == "sqlite":
            return {"path": run.relative(rest.removeprefix("///"))}
        if scheme == "file":
            return {"path": run.relative(url2pathname(urlsplit(store).path))}
        return {} if colon and len(scheme) > 1 else {"path": run.relative(store)}


def _without_credentials(uri: str) -> str:
    """`uri` without the name and password that it may have."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def _allowed(name: str) -> str:
    """`name` with a code in place of each character that MLflow refuses."""
    return _NOT_ALLOWED.sub(
        lambda found: "".join(f":{byte:02x}" for byte in found.group().encode()), name
    )
