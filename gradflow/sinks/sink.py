"""What all sinks have in common."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from gradflow.errors import ConfigurationError
from gradflow.runs.format.files import EXPERIMENT_FILE
from gradflow.sinks.measurements import Magnitudes, StepValues
from gradflow.sinks.names import DEFAULT_QUANTITIES, Choice


@dataclass(frozen=True)
class SinkRun:
    """The run that is written.

    Fields:
        folder: its run folder.
        description: the entries of its `run.json`.
        first_step: the first step to come; the steps before it were written by an earlier process.
        earlier: the entry of `run.json` on what the earlier process wrote to; empty without one.
    """

    folder: Path
    description: Mapping[str, Any] = field(default_factory=dict)
    first_step: int = 0
    earlier: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

    @property
    def experiment(self) -> str:
        """The name of the experiment that the run is one of; "" if it stands alone."""
        above = self.folder.resolve().parent
        return above.name if (above / EXPERIMENT_FILE).exists() else ""

    def relative(self, path: str | Path) -> str:
        """The way from the run folder to `path`, with slashes; "" if there is none."""
        try:
            way = os.path.relpath(Path(path).resolve(), self.folder.resolve())
        except (OSError, ValueError):  # on another drive
            return ""
        return Path(way).as_posix()

    @property
    def settings(self) -> dict[str, Any]:
        """What the libraries keep as a run's settings: its configuration, network and seed."""
        own = {name: self.description.get(name) for name in ("network", "seed")}
        configuration = self.description.get("configuration") or {}
        return {**configuration, **{k: v for k, v in own.items() if v is not None}}


class Sink:
    """A place that recorded numbers are written to. Subclass it for one of your own.

        class Lines(gradflow.sinks.Sink):
            kind = "lines"

            def write(self, step, scalars, histograms):
                for name, value in scalars.items():
                    print(step, name, value)

    `attach` runs in the training's thread, all else in a thread of the sink's own. What any of them
    raises is reported once, and the sink is left.

    Args:
        quantities: patterns of what is written, such as `gradient_norm/layer1.*` or
            `parameter_*`; see docs/howto/sinks.md.
        every: whether all recorded steps are written, or of each epoch the last of them.
        prefix: what all names begin with.
    """

    kind: ClassVar[str] = "own sink"
    takes_histograms: ClassVar[bool] = True
    # Whether what was written can be looked up later; only then `run.json` names the sink.
    keeps: ClassVar[bool] = True

    def __init__(
        self,
        *,
        quantities: str | Iterable[str] = DEFAULT_QUANTITIES,
        every: Literal["step", "epoch"] = "step",
        prefix: str = "gradflow",
    ) -> None:
        if every not in ("step", "epoch"):
            raise ConfigurationError(f'every= is "step" or "epoch", not {every!r}')
        self.choice = Choice(quantities)
        self.every = every
        self.prefix = prefix
        self.place = ""  # where the numbers are to be found, once it is known
        # The same for programs: `address`, a page of the web; `path`, a local file or folder as
        # seen from the run folder; `run`, with which the library knows the run; `project`.
        self.where: dict[str, Any] = {}

    def attach(self) -> None:
        """Look up what belongs to the training's own thread; must not take long."""

    def open(self, run: SinkRun) -> None:
        """Begin to write `run`."""

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Write the numbers of the optimizer step `step`, by full name.

        `histograms` is empty if the class does not take them.
        """
        raise NotImplementedError

    def tell(self, step: int, condition: str, text: str, *, begins: bool) -> None:
        """Write that an alert's condition begins or ends: here 1 or 0 by the name of an alert."""
        self.write(step, {self.named(f"alert/{condition}"): float(begins)}, {})

    def flush(self) -> None:
        """Make visible what was written: some steps are complete."""

    def add_files(self, paths: Iterable[Path]) -> None:
        """Put files among the artifacts of the run, if the library has such."""

    def close(self) -> None:
        """End the run."""

    def named(self, name: str) -> str:
        """`name` after the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def take(self, values: StepValues) -> bool:
        """Write the numbers of a step, if there are any; return whether there were."""
        scalars = {self.named(name): value for name, value in values.scalars.items()}
        histograms = {self.named(name): one for name, one in values.histograms.items()}
        if not self.takes_histograms:
            histograms = {}
        if scalars or histograms:
            self.write(values.step, scalars, histograms)
        return bool(scalars or histograms)

    def summary(self) -> dict[str, Any]:
        """Its entry in `run.json`: kind, place, prefix, every and quantities."""
        return {
            "kind": self.kind,
            "place": self.place,
            **{name: value for name, value in self.where.items() if value},
            "prefix": self.prefix,
            "every": self.every,
            "quantities": list(self.choice.patterns),
        }
