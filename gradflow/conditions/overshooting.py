"""Steps that are so large that the loss does not fall, or that undo what is learnt."""

import numpy as np
from numpy.typing import NDArray

LARGE_STEPS, WITHIN = 3, 10  # so many large steps among so many recorded ones are no outlier
# Times the loss before the first large step: above the first it has not fallen, above the second
# not much, which counts if it was higher than the third in between: more is undone than learnt.
_FALLEN, _NOT_MUCH, _LEAP = 0.98, 0.7, 2.0


def first_large(large: NDArray[np.bool_], steps: NDArray[np.int64]) -> int | None:
    """The first of three large steps among ten recorded ones; None if there are none.

    `large` and `steps`, the numbers of these steps, have shape [recorded steps].
    """
    at = np.flatnonzero(large)
    spans = at[LARGE_STEPS - 1 :] - at[: len(at) - LARGE_STEPS + 1]
    close = np.flatnonzero(spans < WITHIN)
    return int(steps[at[close[0]]]) if len(close) else None


def suffers(before: float, now: float, highest: float) -> bool:
    """Whether a loss has not fallen since the large steps, or leapt and not fallen much.

    Args:
        before: the loss before the first large step.
        now: that of the last steps.
        highest: the largest one since the first large step.
    """
    fallen = before - now > (1 - _FALLEN) * abs(before)
    hardly = before - now < (1 - _NOT_MUCH) * abs(before)
    return not fallen or (hardly and leaps(before, highest))


def leaps(before: float, highest: float) -> bool:
    """Whether a loss has doubled since the large steps; the arguments are those of `suffers`."""
    return highest - before > (_LEAP - 1) * abs(before)
