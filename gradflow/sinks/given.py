"""Writes to what a program hands over: functions and loggers of Lightning."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gradflow.errors import ConfigurationError
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink


class Function(Sink):
    """Calls `write(name, value, step)` for each number, in a thread of its own.

    gradflow.sinks.Function(lambda name, value, step: print(step, name, value), every="epoch")

    Takes also what `Sink` takes.
    """

    kind: ClassVar[str] = "function"
    takes_histograms: ClassVar[bool] = False

    def __init__(self, function: Callable[[str, float, int], Any], **options: Any) -> None:
        super().__init__(**options)
        self._function = function
        self.place = getattr(function, "__qualname__", type(function).__name__)

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Call the function with each number."""
        for name, value in scalars.items():
            self._function(name, value, step)


class Lightning(Sink):
    """Writes to a logger of `lightning` or `pytorch_lightning`, which is not closed.

    gradflow.sinks.Lightning(trainer.logger, quantities=["gradient_norm", "step_*"])

    Takes also what `Sink` takes.
    """

    kind: ClassVar[str] = "Lightning logger"
    takes_histograms: ClassVar[bool] = False

    def __init__(self, logger: Any, **options: Any) -> None:
        super().__init__(**options)
        self._logger = logger

    def attach(self) -> None:
        """Look up where the logger writes."""
        where = getattr(self._logger, "log_dir", None) or getattr(self._logger, "save_dir", None)
        name = type(self._logger).__name__
        self.place = f"{name} in {where}" if where else name

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Log the numbers of a step at once."""
        if scalars:
            self._logger.log_metrics(dict(scalars), step=step)


def as_sink(given: Any) -> Sink:
    """The sink for `given`: a sink, a Lightning logger or a function `(name, value, step)`.

    Raises `ConfigurationError` if it is none of these.
    """
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
