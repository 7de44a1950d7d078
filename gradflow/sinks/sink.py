"""What all sinks have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from gradflow.errors import ConfigurationError
from gradflow.sinks.measurements import Magnitudes, StepValues
from gradflow.sinks.names import DEFAULT_QUANTITIES, Choice


@dataclass(frozen=True)
class SinkRun:
    """The run that is written.

    Fields:
        folder: its run folder.
        description: the entries of its `run.json`.
        first_step: the first step to come; the steps before it were written by an earlier process.
    """

    folder: Path
    description: Mapping[str, Any] = field(default_factory=dict)
    first_step: int = 0

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

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
            `parameter_*`; see docs/sinks.md.
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
            "prefix": self.prefix,
            "every": self.every,
            "quantities": list(self.choice.patterns),
        }


def as_sink(given: Any) -> Sink:
    """The sink for `given`: a sink, a Lightning logger or a function `(name, value, step)`.

    Raises `ConfigurationError` if it is none of these.
    """
    from gradflow.sinks.function import Function  # noqa: PLC0415 - they derive from Sink
    from gradflow.sinks.lightning import Lightning  # noqa: PLC0415

    if isinstance(given, Sink):
        return given
    if not isinstance(given, type):
        if hasattr(given, "log_metrics"):
            return Lightning(given)
        if callable(given):
            return Function(given)
    raise ConfigurationError(
        f"sinks= takes sinks such as gradflow.sinks.TensorBoard(), Lightning loggers and functions "
        f"(name, value, step), not {given!r}"
    )
