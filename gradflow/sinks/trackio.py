"""Writes to Trackio."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gradflow.sinks.libraries import load, require
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink, SinkRun


class Trackio(Sink):
    """Writes scalars to Trackio.

        gradflow.sinks.Trackio("mine")

    Histograms are left out. Takes also what `Sink` takes.

    Args:
        project: the project.
        options: further arguments of `trackio.init`.

    Raises `ConfigurationError` if trackio is missing or too old.
    """

    kind: ClassVar[str] = "Trackio"
    takes_histograms: ClassVar[bool] = False

    def __init__(
        self,
        project: str = "gradflow",
        *,
        options: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        require("trackio", "0.20")
        self._project = project
        self._options = dict(options or {})
        self._run: Any = None
        self.place = f"project {project}"

    def open(self, run: SinkRun) -> None:
        """Begin a run."""
        trackio = load("trackio")
        known = inspect.signature(trackio.init).parameters
        # What the machine does is not ours to log.
        own = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        arguments: dict[str, Any] = {k: value for k, value in own.items() if k in known}
        arguments |= {"name": run.name, "config": run.settings, **self._options}
        self._run = trackio.init(project=self._project, **arguments)
        self.place = f"project {self._project}, run {self._run.name}"

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Log the numbers of a step at once."""
        if scalars:
            self._run.log(dict(scalars), step=step)

    def add_files(self, paths: Iterable[Path]) -> None:
        """Put each file among the run's artifacts."""
        artifact = load("trackio").Artifact("gradflow-report", type="report")
        for path in paths:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
