"""Writes to a logger of Lightning."""

from collections.abc import Mapping
from typing import Any, ClassVar

from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink


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
