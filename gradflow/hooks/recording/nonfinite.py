"""Finds the first nan or infinite value of a run: its step, layer and direction."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np


def first_nonfinite(
    tables: Mapping[str, Mapping[str, Any]], skipped: Collection[int] = ()
) -> dict[str, Any] | None:
    """Return the first non-finite value in `tables`, or None if every value is finite.

    The rows of a table are in order of execution. Within a step, the forward pass comes before the
    backward pass. Gradients of the steps in `skipped` do not count: the loss scale was too large
    there, and the scaler has reduced it.
    """
    found: list[dict[str, Any]] = []
    for name, direction in (("activations", "forward"), ("gradients", "backward")):
        columns = tables.get(name)
        if columns is None:
            continue
        counts = np.asarray(columns["nonfinite"])
        wrong = counts > 0
        if direction == "backward":
            wrong &= ~np.isin(np.asarray(columns["step"]), list(skipped))
        if wrong.any():
            row = int(np.argmax(wrong))
            entry: dict[str, Any] = {
                "epoch": int(columns["epoch"][row]),
                "step": int(columns["step"][row]),
                "layer": str(columns["layer"][row]),
                "direction": direction,
                "count": int(counts[row]),
            }
            found.append(entry)
    # If both are in the same step, min returns the forward pass, which is first in the list.
    return min(found, key=lambda entry: int(entry["step"]), default=None)


def nonfinite_message(entry: Mapping[str, Any]) -> str:
    """Return an error message for what `first_nonfinite` found."""
    what = "output" if entry["direction"] == "forward" else "gradient of the output"
    values = "value" if entry["count"] == 1 else "values"
    return (
        f"step {entry['step']} has {entry['count']} non-finite {values} in the {what} of layer "
        f"{entry['layer']} ({entry['direction']} pass), the first in order of execution: "
        "what was recorded up to here is in the run folder"
    )
