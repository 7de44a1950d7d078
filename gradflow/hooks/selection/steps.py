"""Which steps are recorded, which of these with histograms, and the time that a budget measures."""

import time
from collections.abc import Callable
from typing import Any

from gradflow.errors import TracingError
from gradflow.hooks.selection.schedules import Budget, Schedule, as_schedule, require_positive_int


class RecordedSteps:
    """Asks the schedule about each step once, and tells a budget what the steps took.

    Args:
        schedule: n, to record every n-th step; a function of the step; or a `Budget`.
        histograms: as for `HistogramSchedule`.
        every_step: whether all steps are recorded, chosen by the schedule or not.

    Fields:
        schedule: the schedule, as a function.
        histograms: the steps that also have histograms.
        words: what the schedule is.
    """

    def __init__(
        self,
        schedule: int | Schedule,
        histograms: bool | int | Schedule,
        *,
        every_step: bool = False,
    ) -> None:
        self.schedule, self.words = as_schedule(schedule)
        self._every_step = every_step
        self.histograms = HistogramSchedule(histograms)
        self._last_answer: tuple[int, bool] | None = None
        self._began = 0.0

    def agree_by(self, agree: Callable[[int], int]) -> None:
        """Let several processes record the same steps; `agree` is that of `Processes`."""
        if isinstance(self.schedule, Budget):
            self.schedule.decide_with(agree)

    def wants(self, step: int) -> bool:
        """Whether `step` is recorded."""
        return self._every_step or self.chosen(step)

    def chosen(self, step: int) -> bool:
        """Whether the schedule chooses `step`; it is called once a step."""
        if self._last_answer is None or self._last_answer[0] != step:
            self._last_answer = (step, bool(self.schedule(step)))
        return self._last_answer[1]

    def begin_epoch(self, step: int) -> None:
        """An epoch begins with `step`."""
        if isinstance(self.schedule, Budget):
            self.schedule.epoch_begins(step)

    def begin(self) -> None:
        """A step begins now."""
        self._began = time.monotonic()

    def end(self, *, recorded: bool, writing_began: float) -> None:
        """A step has ended, and since `writing_began` its numbers were transferred and written."""
        if isinstance(self.schedule, Budget):
            end = time.monotonic()
            self.schedule.add_step(
                recorded=recorded, seconds=end - self._began, writing=end - writing_began
            )

    def summary(self) -> dict[str, Any]:
        """Return the entry of `run.json` on the budget, if there is one."""
        return {"budget": self.schedule.summary()} if isinstance(self.schedule, Budget) else {}


class HistogramSchedule:
    """The schedule of the recorded steps that also have histograms of magnitudes.

    Args:
        histograms: True (all recorded steps) or False (none); n, every n-th recorded step, starting
            with the first; or a function of the step.

    Raises `TracingError` for a number below 1, and for a `Budget`, which times whole steps.
    """

    def __init__(self, histograms: bool | int | Schedule) -> None:
        if isinstance(histograms, Budget):
            raise TracingError(
                "a budget cannot choose the steps with histograms: give the budget as the "
                "schedule, and histograms a number of recorded steps"
            )
        self.enabled = histograms is not False
        self._recorded = 0
        self._last_answer: tuple[int, bool] | None = None
        self._wanted: Schedule | None = histograms if callable(histograms) else None
        self._every = 1 if callable(histograms) or isinstance(histograms, bool) else histograms
        require_positive_int("histograms", self._every)

    def __call__(self, step: int) -> bool:
        """Whether the recorded step `step` has histograms; a function is called once a step."""
        if not self.enabled:
            return False
        if self._wanted is None:
            return self._recorded % self._every == 0
        if self._last_answer is None or self._last_answer[0] != step:
            self._last_answer = (step, bool(self._wanted(step)))
        return self._last_answer[1]

    def __str__(self) -> str:
        if not self.enabled:
            return "none"
        if self._wanted is not None:
            return as_schedule(self._wanted)[1]
        return "all recorded steps" if self._every == 1 else f"every {self._every} recorded steps"

    def count_recorded_step(self) -> None:
        """Count a recorded step that has ended."""
        self._recorded += 1
