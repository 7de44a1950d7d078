"""Schedules choose which steps are recorded: functions called once for each step, in order."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from gradflow.errors import TracingError
from gradflow.hooks.selection.epochs import StepsOfEachEpoch

Schedule = Callable[[int], bool]

# Of `default_schedule`: the share of the time, and the steps of each epoch.
DEFAULT_SHARE, DEFAULT_EACH_EPOCH = 0.02, 8


@dataclass(frozen=True)
class DescribedSchedule:
    """A schedule with a description in words."""

    text: str
    wanted: Schedule

    def __call__(self, step: int) -> bool:
        """Whether `step` is recorded."""
        return self.wanted(step)

    def __str__(self) -> str:
        return self.text


def _every(interval: int) -> str:
    return "every step" if interval == 1 else f"every {interval} steps"


def every(interval: int) -> DescribedSchedule:
    """The schedule that records steps 0, `interval`, 2 `interval`, ...

    Raises `TracingError` unless `interval` is a positive integer.
    """
    require_positive_int("every", interval)
    return DescribedSchedule(_every(interval), lambda step: step % interval == 0)


def first_then_every(first: int, interval: int) -> DescribedSchedule:
    """The schedule that records the first `first` steps, and then every `interval`-th step.

    Raises `TracingError` unless both are positive integers.
    """
    require_positive_int("first_then_every", first)
    require_positive_int("first_then_every", interval)
    return DescribedSchedule(
        f"the first {first} steps, then {_every(interval)}",
        lambda step: step < first or step % interval == 0,
    )


def log_spaced(per_decade: int) -> DescribedSchedule:
    """The schedule that records step 0 and about `per_decade` steps in each factor of ten.

    These steps are the integer parts of 10^(i / `per_decade`), i = 0, 1, 2, ...

    Raises `TracingError` unless `per_decade` is a positive integer.
    """
    require_positive_int("log_spaced", per_decade)

    def wanted(step: int) -> bool:
        if step == 0:
            return True
        nearest = round(per_decade * math.log10(step))
        # The logarithm is rounded, so the neighbouring powers are tried too.
        return any(
            int(10 ** (index / per_decade) + 1e-9) == step
            for index in range(max(nearest - 1, 0), nearest + per_decade + 2)
        )

    return DescribedSchedule(f"{per_decade} steps in each factor of ten", wanted)


class Budget:
    """The schedule that spends at most `share` of the time on recording, measured during the run.

    The cost of a recorded step is the time that it takes longer than an unrecorded one (medians
    over the latest `_WINDOW` steps of each kind), plus the time for transfer and writing. The next
    step is recorded if the cost so far plus that of one more step stays within the share of the
    total time. Step 0 is always recorded but not used as a measurement, since first steps are slow
    anyway; steps 1 to 3 are not recorded, step 4 is. Only `time.monotonic` is read. A GPU works
    asynchronously, so there the time of a single step is not exact; it is right on average.

    Processes that train together record the same steps: after each recorded one, that of rank 0
    tells the others which step is the next, from its own times. The steps between are not asked
    about.

    With `each_epoch`, that many steps of each epoch are recorded in any case, spread evenly, so
    that analyses have enough of each; what they cost counts. So in short epochs the share may be
    exceeded, by that many steps an epoch at most. `steps_per_epoch` says how long epochs are; else
    that is known from the first one on, of which steps 0, 4, 6, 8, 12, 16, 24, ... are recorded.

    Raises `TracingError` unless `share` lies between 0 and 1, and the others are numbers of steps.
    """

    _WINDOW = 64
    _FIRST_MEASURED = 4
    _FARTHEST = 1000

    def __init__(
        self, share: float, *, each_epoch: int | None = None, steps_per_epoch: int | None = None
    ) -> None:
        for name, value in (("each_epoch", each_epoch), ("steps_per_epoch", steps_per_epoch)):
            if value is not None:
                require_positive_int(name, value)
        if isinstance(share, bool) or not 0 < share < 1:
            raise TracingError(f"a budget is a share of the time between 0 and 1, not {share!r}")
        self.share = share
        self._recorded: deque[float] = deque(maxlen=self._WINDOW)
        self._plain: deque[float] = deque(maxlen=self._WINDOW)
        self._steps = self._recorded_steps = 0
        self._total = self._writing = 0.0
        self._in_any_case = StepsOfEachEpoch(each_epoch, steps_per_epoch) if each_epoch else None
        self._agree: Callable[[int], int] | None = None
        self._next = self._ask_at = self._FIRST_MEASURED

    def __call__(self, step: int) -> bool:
        """Whether `step` is recorded."""
        if step <= self._FIRST_MEASURED:
            return step in (0, self._FIRST_MEASURED)
        if self._in_any_case is not None and self._in_any_case(step):
            return True
        if self._agree is not None:
            return self._is_next(step, self._agree)
        cost = self._cost()
        return self._spent() + cost <= self.share * (self._total + cost)

    def __str__(self) -> str:
        least = self._in_any_case
        words = "" if least is None else f", at least {least.count} steps of each epoch"
        return f"a budget of {self.share:.2%} of the time{words}"

    def epoch_begins(self, step: int) -> None:
        """Say that an epoch begins with `step`."""
        if self._in_any_case is not None:
            self._in_any_case.epoch_begins(step)

    def decide_with(self, agree: Callable[[int], int]) -> None:
        """Record the same steps as other processes.

        `agree` takes a number and returns that of the process of rank 0; all call it together.
        """
        self._agree = agree

    def add_step(self, *, recorded: bool, seconds: float, writing: float) -> None:
        """Add a step that took `seconds`, `writing` of them for transfer and writing."""
        first = self._steps == 0
        self._steps += 1
        self._recorded_steps += recorded
        self._total += seconds
        self._writing += writing
        if not first:
            (self._recorded if recorded else self._plain).append(seconds - writing)

    def summary(self) -> dict[str, Any]:
        """Return the time spent, for `run.json`; `measured_share` is None until it is known."""
        known = self._recorded and self._plain and self._total
        return {
            "share": self.share,
            "measured_share": self._spent() / self._total if known else None,
            "steps": self._steps,
            "recorded_steps": self._recorded_steps,
            "seconds": self._total,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the times measured so far."""
        return {
            "recorded": list(self._recorded),
            "plain": list(self._plain),
            "steps": self._steps,
            "recorded_steps": self._recorded_steps,
            "total": self._total,
            "writing": self._writing,
            "next": self._next,
            "ask_at": self._ask_at,
            "epoch": None if self._in_any_case is None else self._in_any_case.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the times in `state`."""
        self._recorded.extend(state["recorded"])
        self._plain.extend(state["plain"])
        self._steps, self._recorded_steps = state["steps"], state["recorded_steps"]
        self._total, self._writing = state["total"], state["writing"]
        self._next = state.get("next", self._next)
        self._ask_at = state.get("ask_at", self._ask_at)
        if self._in_any_case is not None and state.get("epoch"):
            self._in_any_case.load_state_dict(state["epoch"])

    def _is_next(self, step: int, agree: Callable[[int], int]) -> bool:
        """Whether all processes record `step`; they decide anew after each recorded step."""
        if step > self._next and step >= self._ask_at:
            wait = agree(self._steps_to_wait())
            if wait > self._FARTHEST:
                self._ask_at = step + self._FARTHEST
            else:
                self._next = step + wait
        return step == self._next

    def _steps_to_wait(self) -> int:
        """After how many unrecorded steps another one fits in the budget."""
        cost, plain = self._cost(), median(self._plain) if self._plain else 0.0
        # The recorded step under way has not been added yet.
        missing = (self._spent() + 2 * cost) / self.share - self._total - 2 * cost
        if missing <= 0:
            return 0
        return math.ceil(min(missing / plain, 2 * self._FARTHEST)) if plain else 1

    def _cost(self) -> float:
        """Seconds that a recorded step takes longer; 0 until both kinds were timed."""
        if not self._recorded or not self._plain:
            return 0.0
        return max(0.0, median(self._recorded) - median(self._plain))

    def _spent(self) -> float:
        return self._recorded_steps * self._cost() + self._writing


def default_schedule(
    device_type: str, *, every_steps: int = 1, steps_per_epoch: int | None = None
) -> DescribedSchedule | Budget:
    """The schedule of a training that names none: on the CPU, every `every_steps` steps.

    On other devices it is a budget of 2 % of the time, with at least 8 steps of each epoch: with
    fewer, the intervals of `analyses.statistics` are missing.
    """
    if device_type == "cpu":
        return every(every_steps)
    return Budget(DEFAULT_SHARE, each_epoch=DEFAULT_EACH_EPOCH, steps_per_epoch=steps_per_epoch)


def first_recorded_of_each_epoch(steps_per_epoch: int) -> DescribedSchedule:
    """The schedule of the first step in each epoch among those that it is asked about, in order.

    Of the steps with histograms it is asked about the recorded ones, whatever chooses those.

    Raises `TracingError` unless `steps_per_epoch` is a positive integer.
    """
    require_positive_int("first_recorded_of_each_epoch", steps_per_epoch)
    last = -1

    def is_first(step: int) -> bool:
        nonlocal last
        before, last = last, step // steps_per_epoch
        return last != before

    return DescribedSchedule("the first recorded step of each epoch", is_first)


def as_schedule(schedule: int | Schedule) -> tuple[Schedule, str]:
    """Return the schedule for a number of steps or a function, and its description."""
    chosen = schedule if callable(schedule) else every(schedule)
    return chosen, str(chosen) if isinstance(chosen, (DescribedSchedule, Budget)) else "a function"


def require_positive_int(name: str, value: int) -> None:
    """Raise `TracingError` unless `value`, the option `name`, is a number of steps."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TracingError(f"{name} must be a whole number of steps from 1 up, not {value!r}")
