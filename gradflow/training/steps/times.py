"""Measures how long recorded and other training steps take, to show the cost of tracing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median


@dataclass
class StepTimes:
    """The seconds of an epoch's steps, separately for recorded steps and the others.

    Both kinds alternate in one run, so other work on the machine slows both alike.
    """

    _recorded: list[float] = field(default_factory=list)
    _others: list[float] = field(default_factory=list)

    @contextmanager
    def step(self, *, recorded: bool) -> Iterator[None]:
        """Measure the time of a step that runs within this context."""
        start = time.perf_counter()
        yield
        (self._recorded if recorded else self._others).append(time.perf_counter() - start)

    def columns(self) -> dict[str, float | None]:
        """The median seconds of each kind, as scalars of the epoch; None without such a step."""
        return {
            "recorded_step_seconds": median(self._recorded) if self._recorded else None,
            "other_step_seconds": median(self._others) if self._others else None,
        }
