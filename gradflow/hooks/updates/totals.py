"""Totals over parameters: of a step, and how much its gradients were clipped.

They are computed from the norms of single parameters, in main memory: there these are those of
whole parameters, joined over the processes, and without the scale of the loss.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradflow.hooks.recording.records import Columns

Column = np.ma.MaskedArray[Any, Any]


def add_clipping_factors(parameters: Columns) -> None:
    """Fill the column `clipping_factor` of the rows of the table `parameters`."""
    parameters["clipping_factor"] = ratio(
        parameters["gradient_norm"], parameters["backward_gradient_norm"]
    )


def step_totals(steps: Sequence[int], parameters: Columns | None) -> Columns:
    """Return the columns of the table `steps` on gradients, one value for each of `steps`."""
    if parameters is None:
        names = ("backward_gradient_norm", "gradient_norm", "clipping_factor")
        return {name: np.ma.masked_all(len(steps)) for name in names}
    return gradient_totals(parameters, places_of(parameters["step"], steps), len(steps))


def places_of(found: Sequence[int] | np.ndarray, steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the place among `steps` of each step in `found`: [rows]."""
    among, wanted = np.asarray(steps), np.asarray(found)
    if not len(wanted):
        return np.zeros(0, dtype=int)
    order = np.argsort(among)
    places: np.ndarray = order[np.searchsorted(among, wanted, sorter=order)]
    return places


def gradient_totals(parameters: Columns, places: np.ndarray, count: int) -> Columns:
    """Return both total norms of the gradients and their ratio: [count] each.

    `places` [rows] says which of the totals each row of `parameters` belongs to.
    """
    left, received = parameters["backward_gradient_norm"], parameters["gradient_norm"]
    has_both = ~(np.ma.getmaskarray(left) | np.ma.getmaskarray(received))
    both = [root_of_squares(one[has_both], places[has_both], count) for one in (received, left)]
    return {
        "backward_gradient_norm": root_of_squares(left, places, count),
        "gradient_norm": root_of_squares(received, places, count),
        "clipping_factor": ratio(both[0], both[1]),
    }


def root_of_squares(values: Column, places: np.ndarray, count: int) -> Column:
    """Return sqrt(sum(values^2)) by place: [count], missing where no value is known."""
    known = ~np.ma.getmaskarray(values)
    where = places[known]
    with np.errstate(over="ignore"):
        squares = np.asarray(values.data, dtype=float)[known] ** 2
    totals = np.bincount(where, weights=squares, minlength=count)
    return np.ma.array(np.sqrt(totals), mask=np.bincount(where, minlength=count) == 0)


def quotient(above: Column, below: Column) -> Column:
    """Return above / below; missing where one is, or where `below` is zero."""
    return np.ma.masked_where(np.asarray(below.data) == 0, ratio(above, below))


def ratio(above: Column, below: Column) -> Column:
    """Return above / below; missing where one is, or both are zero."""
    upper, lower = (np.asarray(one.data, dtype=float) for one in (above, below))
    unknown = np.ma.getmaskarray(above) | np.ma.getmaskarray(below) | ((upper == 0) & (lower == 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.ma.array(upper / lower, mask=unknown)
