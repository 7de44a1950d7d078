"""Results that several analyses need of the same run: each is computed once."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import ref

from gradflow.runs.reading.run import Run

P = ParamSpec("P")
T = TypeVar("T")


def once_per_run(
    compute: Callable[Concatenate[Run, P], T],
) -> Callable[Concatenate[Run, P], T]:
    """Remember what `compute` returns for a run, as long as the run object itself exists.

    A run reads each of its tables once, so the result cannot change. Nobody may change it either.
    The further arguments must be hashable.
    """
    kept: dict[object, tuple[ref[Run], T]] = {}

    @wraps(compute)
    def once(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Not the run itself: its description makes it unhashable.
        key = (id(run), args, tuple(sorted(kwargs.items())))
        if key not in kept:
            result = compute(run, *args, **kwargs)
            kept[key] = (ref(run, lambda _: kept.pop(key, None)), result)
        return kept[key][1]

    return once
