"""Writes to Aim."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gradflow.sinks.libraries import load, require
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink, SinkRun

# What the machine does is not ours to log.
_QUIET = {
    "system_tracking_interval": None,
    "capture_terminal_logs": False,
    "log_system_params": False,
}


class Aim(Sink):
    """Writes scalars and distributions of magnitudes to Aim.

        gradflow.sinks.Aim("aim-repo", experiment="mine")

    A training that is resumed goes on with its run. Takes also what `Sink` takes.

    Args:
        repo: the folder or address of the repository; by default the one that Aim takes.
        experiment: the name of the experiment; by default that of the experiment that the run is
            one of, or else `gradflow`.

    Raises `ConfigurationError` if aim is missing or too old.
    """

    kind: ClassVar[str] = "Aim"

    def __init__(
        self, repo: str | Path | None = None, *, experiment: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        require("aim", "3.20")
        self._repo = None if repo is None else str(repo)
        self._experiment = experiment
        self._run: Any = None

    def open(self, run: SinkRun) -> None:
        """Begin a run."""
        self._aim = load("aim")
        self._run = self._resumed(run) or self._aim.Run(
            repo=self._repo,
            experiment=self._experiment or run.experiment or "gradflow",
            **_QUIET,
        )
        self._run.name = run.name
        self._run["gradflow"] = run.settings
        self.place = f"{self._repo or 'the default repository'}, run {self._run.hash}"
        self.where = {"run": self._run.hash}
        if "://" not in str(self._repo):
            self.where["path"] = run.relative(self._repo or ".")

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Track each value of a step; distributions are over log2 of magnitudes."""
        for name, value in scalars.items():
            self._run.track(value, name=name, step=step)
        for name, one in histograms.items():
            if one.counts:
                drawn = self._aim.Distribution(
                    hist=list(one.counts), bin_range=(one.edges[0], one.edges[-1])
                )
                self._run.track(drawn, name=name, step=step)

    def tell(self, step: int, condition: str, text: str, *, begins: bool) -> None:
        """Track the sentence among the texts, and the number among the metrics."""
        super().tell(step, condition, text, begins=begins)
        self._run.track(self._aim.Text(text), name=self.named(f"alert/{condition}/text"), step=step)

    def add_files(self, paths: Iterable[Path]) -> None:
        """Put the files among the run's artifacts, next to the repository."""
        if self._repo is not None and "://" not in self._repo:
            self._run.set_artifacts_uri((Path(self._repo) / "artifacts").resolve().as_uri())
        for path in paths:
            self._run.log_artifact(str(path), name=path.name)

    def close(self) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.close()

    def _resumed(self, run: SinkRun) -> Any:
        """The run that an earlier process wrote to; None if there is none any more."""
        earlier = run.earlier.get("run")
        if not isinstance(earlier, str):
            return None
        errors = load("aim.sdk.errors")
        try:
            # A process that was killed has left its lock.
            return self._aim.Run(earlier, repo=self._repo, force_resume=True, **_QUIET)
        except errors.MissingRunError:
            return None
