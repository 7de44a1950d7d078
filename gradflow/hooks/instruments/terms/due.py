"""In which recorded steps the terms of the loss are measured."""

from typing import Any

from gradflow.hooks.selection.schedules import Schedule

# How many steps that are due go by without a call before steps are no longer prepared for one.
_TRIES = 8


class DueSteps:
    """Says of each recorded step whether the terms are measured if they are given in it.

    A step has to be prepared for that before it is known whether they will be. So only the first
    recorded step is prepared unasked. If they are given later for the first time, the next
    recorded step is the first that is measured.

    Args:
        terms: n, to measure in the first step and then in every n-th recorded one; or a function
            of the step.

    Fields:
        is_due: whether the step under way is.
    """

    def __init__(self, terms: int | Schedule) -> None:
        self.is_due = False
        self._every = 1 if callable(terms) else terms
        self._wanted = terms if callable(terms) else None
        self._left = 0
        self._tries = 1
        self._is_measured = False
        self._counts = True

    def begin(self, step: int, *, counts: bool = True) -> bool:
        """Begin the recorded step `step`; return whether it is due.

        One that does not count, since it may never be written, is due only by a function.
        """
        self._is_measured, self._counts = False, counts
        if self._wanted is not None:
            self.is_due = bool(self._wanted(step))
        else:
            self.is_due = counts and self._tries > 0 and self._left == 0
        return self.is_due

    def begin_unrecorded(self) -> None:
        """Begin a step that is not recorded."""
        self.is_due = False

    def note_call(self) -> None:
        """The terms were given, in whatever step."""
        if self._tries == 0:
            self._tries, self._left = _TRIES, 0

    def note_measured(self) -> None:
        """The terms of the step under way are measured."""
        self._is_measured = True

    def end(self) -> None:
        """The recorded step under way has ended."""
        if self._is_measured:
            self._left, self._tries = self._every - 1, _TRIES
        elif not self._counts:
            pass
        elif self.is_due:
            self._tries -= 1
        elif self._left:
            self._left -= 1
        self.is_due = False

    def state_dict(self) -> dict[str, Any]:
        """Return what is left to wait."""
        return {"left": self._left, "tries": self._tries}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the schedule may be another one."""
        self._left = min(int(state["left"]), self._every - 1)
        self._tries = int(state["tries"])
