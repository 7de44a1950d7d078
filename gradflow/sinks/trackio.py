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

    Histograms are left out. A training that is resumed goes on with its run. Takes also what
    `Sink` takes.

    Args:
        project: the project; by default that of the experiment that the run is one of, or else
            `gradflow`. In a project that is named, the experiment is part of the run's name.
        options: further arguments of `trackio.init`.

    Raises `ConfigurationError` if trackio is missing or too old.
    """

    kind: ClassVar[str] = "Trackio"
    takes_histograms: ClassVar[bool] = False

    def __init__(
        self,
        project: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        require("trackio", "0.25")
        self._project = project
        self._options = dict(options or {})
        self._run: Any = None
        self.place = f"project {project}" if project else ""

    def open(self, run: SinkRun) -> None:
        """Begin a run."""
        trackio = load("trackio")
        known = inspect.signature(trackio.init).parameters
        # What the machine does is not ours to log.
        own = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        arguments: dict[str, Any] = {k: value for k, value in own.items() if k in known}
        project, name = self._project or run.experiment or "gradflow", run.name
        if self._project and run.experiment:
            name = f"{run.experiment}-{name}"
        arguments |= {"name": run.earlier.get("run") or name, "config": run.settings}
        if run.earlier.get("run"):
            arguments["resume"] = "allow"
        if run.experiment and "group" in known:
            arguments["group"] = run.experiment
        arguments |= self._options
        self._run = trackio.init(project=project, **arguments)
        self.place = f"project {project}, run {self._run.name}"
        self.where = {"project": project, "run": self._run.name}
        if space := arguments.get("space_id"):
            self.where["address"] = f"https://huggingface.co/spaces/{space}"

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
