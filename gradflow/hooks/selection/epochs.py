"""Schedules that know where epochs begin."""

from typing import Any


class StepsOfEachEpoch:
    """Chooses `count` steps of each epoch, spread evenly over it, in the middles of equal parts.

    Of an epoch that is shorter, all steps. While no epoch has ended and `steps_per_epoch` is not
    given, the length is unknown: then steps 0, 2^n and 3 2^n, of which up to step 41 eight are
    later than the third. A later epoch is taken to be as long as the one before.
    """

    def __init__(self, count: int, steps_per_epoch: int | None = None) -> None:
        self.count = count
        self._start, self._length = 0, steps_per_epoch
        self._is_given = steps_per_epoch is not None

    def __call__(self, step: int) -> bool:
        """Whether `step`, counted from the beginning of the training, is one of them."""
        place = step - self._start
        if self._length is None:
            return place == 0 or place // (place & -place) in (1, 3)
        place %= self._length
        return self._marks_up_to(place, self._length) > self._marks_up_to(place - 1, self._length)

    def _marks_up_to(self, place: int, length: int) -> int:
        """How many middles of `count` equal parts lie at or before `place`."""
        return (2 * place * self.count + length) // (2 * length)

    def epoch_begins(self, step: int) -> None:
        """Say that an epoch begins with `step`, and that the one before has ended."""
        if step > self._start and not self._is_given:
            self._start, self._length = step, step - self._start

    def state_dict(self) -> dict[str, Any]:
        """Return where the present epoch began, and how long the last one was."""
        return {"start": self._start, "length": self._length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if not self._is_given:
            self._start, self._length = state["start"], state["length"]
