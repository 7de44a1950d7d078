"""Which steps are recorded."""

from collections.abc import Callable

from gradflow.errors import TracingError

Schedule = Callable[[int], bool]


def every(interval: int) -> Schedule:
    """The schedule that records steps 0, `interval`, 2 `interval`, ...

    Raises `TracingError` where `interval` is not a positive integer.
    """
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise TracingError(f"every must be a whole number of steps from 1 up, not {interval!r}")
    return lambda step: step % interval == 0
