"""What an alert is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


class AlertWarning(UserWarning):
    """The category of the warnings that `Tracer(..., alerts="warn")` gives."""


@dataclass(frozen=True)
class Alert:
    """A condition that begins or ends while a model trains.

    Fields:
        condition: its key, as in the health check.
        begins: whether it begins here; otherwise it ends.
        step: the first recorded step that had the condition, or the first that has it no more.
        noticed: the last step whose numbers were known when this was said.
        layer: the layer or parameter where it is worst; empty if it is of the whole network.
        number: what was measured there.
        bound: what the number is compared with; None if any such value is ill.
        sentence: what happened, where and since when, in words.
    """

    condition: str
    begins: bool
    step: int
    noticed: int
    layer: str
    number: float
    bound: float | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as they stand in `run.json`."""
        return asdict(self)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Alert":
        """The alert with the fields `entry`."""
        return cls(**entry)
