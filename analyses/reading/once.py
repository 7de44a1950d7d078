"""Results that several analyses need of the same run or table: each is computed once."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import ref

import pandas as pd

from gradflow.runs.reading.run import Run

P = ParamSpec("P")
T = TypeVar("T")
Source = TypeVar("Source", Run, pd.DataFrame)


def once_per(
    compute: Callable[Concatenate[Source, P], T],
) -> Callable[Concatenate[Source, P], T]:
    """Remember what `compute` returns for a run or table, as long as that object itself exists.

    A run reads each of its tables once, so the result cannot change. Nobody may change it either,
    nor the table. The further arguments must be hashable.
    """
    kept: dict[object, tuple[ref[Source], T]] = {}

    @wraps(compute)
    def once(source: Source, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # By identity: the description of a run makes it unhashable, and so is a table.
        key = (id(source), args, tuple(sorted(kwargs.items())))
        if key not in kept:
            result = compute(source, *args, **kwargs)
            kept[key] = (ref(source, lambda _: kept.pop(key, None)), result)
        return kept[key][1]

    return once


def once_per_run(
    compute: Callable[Concatenate[Run, P], T],
) -> Callable[Concatenate[Run, P], T]:
    """`once_per` run."""
    return once_per(compute)
