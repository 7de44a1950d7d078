"""Writes to Weights & Biases."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gradflow.sinks.libraries import load, require
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink, SinkRun


class WandB(Sink):
    """Writes scalars and histograms of magnitudes to W&B.

        gradflow.sinks.WandB(project="mine")

    The horizontal axis is `gradflow/step`, the optimizer step. Takes also what `Sink` takes.

    Args:
        project: the project; by default the one that W&B takes.
        run: the `wandb.Run` to write to, such as `wandb.run`; it is not finished. W&B's own step
            counter then counts what is written here too, so log numbers of your own without
            `step=`. By default a run of its own begins, in the group of a run under way, or else
            that of the experiment; a training that is resumed goes on with its run.
        options: further arguments of `wandb.init`.

    Raises `ConfigurationError` if wandb is missing or too old.
    """

    kind: ClassVar[str] = "W&B"

    def __init__(
        self,
        project: str | None = None,
        *,
        run: Any = None,
        options: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        require("wandb", "0.20")
        self._project = project
        self._given = run
        self._options = dict(options or {})
        self._run: Any = None

    def open(self, run: SinkRun) -> None:
        """Begin a run, unless one was given."""
        self._wandb = load("wandb")
        self._run = self._given
        if self._run is None:
            self._run = self._wandb.init(**self._arguments(run))
        self._axis = self.named("step")
        self._run.define_metric(self._axis, hidden=True)
        self._run.define_metric(self.named("*"), step_metric=self._axis)
        self.place = str(self._run.url or self._run.dir)
        self.where = {"run": self._run.id, "project": self._run.project, "address": self._run.url}
        if not self._run.url:
            # Each process that goes on with a run offline has a folder of its own.
            before = [run.earlier.get("path"), *(run.earlier.get("earlier_paths") or [])]
            self.where["path"] = run.relative(Path(self._run.dir).parent)
            self.where["earlier_paths"] = [one for one in before if one]

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Log the values of a step at once; histograms are over log2 of magnitudes."""
        drawn = {
            name: self._wandb.Histogram(np_histogram=(list(one.counts), one.edges))
            for name, one in histograms.items()
            if one.counts
        }
        self._run.log({self._axis: step, **scalars, **drawn})

    def tell(self, step: int, condition: str, text: str, *, begins: bool) -> None:
        """Send an alert of W&B as the condition begins, and log the number."""
        super().tell(step, condition, text, begins=begins)
        if begins:
            self._run.alert(title=f"gradflow: {condition}", text=text, level="WARN")

    def add_files(self, paths: Iterable[Path]) -> None:
        """Put the files among the run's files."""
        for path in paths:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self) -> None:
        """Finish the run, unless it was given."""
        if self._given is None and self._run is not None:
            self._run.finish()

    def _arguments(self, run: SinkRun) -> dict[str, Any]:
        under_way = self._wandb.run
        group = run.experiment if under_way is None else under_way.group or under_way.id
        project = self._project or run.earlier.get("project")
        arguments = {
            "project": project or (under_way.project if under_way is not None else None),
            "name": run.name,
            "id": run.earlier.get("run"),
            "resume": "allow" if run.earlier.get("run") else None,
            "group": group or None,
            "config": run.settings,
            # A run of the user's that is under way goes on.
            "reinit": "create_new",
        }
        return {name: value for name, value in arguments.items() if value is not None} | (
            self._options
        )
