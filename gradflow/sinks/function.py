"""Writes to any function."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

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
