"""When a number that varies from step to step lies beyond a bound, and not by chance."""

from functools import cache
from math import comb

from gradflow.conditions.bounds import MIN_WINDOW


@cache
def enough(steps: int, level: float = 0.95) -> int | None:
    """How many of `steps` numbers must lie beyond a bound for their median to lie there.

    With that many, the distribution-free interval of the median at `level`, which comes from order
    statistics, lies beyond the bound as a whole. Of fewer than six numbers there is none: None.
    """
    if steps < MIN_WINDOW:
        return None
    below, k = 0.0, 0  # P(Binomial(steps, 1/2) < k)
    while below + comb(steps, k) / 2**steps <= (1 - level) / 2:
        below += comb(steps, k) / 2**steps
        k += 1
    return steps - k + 1 if k else None
