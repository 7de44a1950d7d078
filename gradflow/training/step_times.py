"""How long training steps take, recorded ones beside the others: what tracing costs, as it goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median


@dataclass
class StepTimes:
    """The seconds of an epoch's steps, of those that the tracer records and of the others.

    Recorded and other steps follow each other in one run, so that what else the machine does meets
    both alike.
    """

    _recorded: list[float] = field(default_factory=list)
    _others: list[float] = field(default_factory=list)

    @contextmanager
    def step(self, *, recorded: bool) -> Iterator[None]:
        """Take the time of the step that is run within."""
        start = time.perf_counter()
        yield
        (self._recorded if recorded else self._others).append(time.perf_counter() - start)

    def columns(self) -> dict[str, float | None]:
        """The medians, as scalars of the epoch; None where there was no such step."""
        return {
            "recorded_step_seconds": median(self._recorded) if self._recorded else None,
            "other_step_seconds": median(self._others) if self._others else None,
        }
