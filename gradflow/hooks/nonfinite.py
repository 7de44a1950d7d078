"""Where the first value that is nan or infinite stood: step, layer, and direction."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np


def first_nonfinite(
    tables: Mapping[str, Mapping[str, Any]], skipped: Collection[int] = ()
) -> dict[str, Any] | None:
    """The first non-finite value in the rows of `tables`, which are in order of execution.

    Within a step the forward pass comes first, in order of execution, then the backward pass in
    its own. Gradients of the steps in `skipped` do not count: there the loss scale was too large,
    which the scaler has found and mended. None where every value is finite.
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
    # A tie goes to the forward pass, which stands first.
    return min(found, key=lambda entry: int(entry["step"]), default=None)


def nonfinite_message(entry: Mapping[str, Any]) -> str:
    """What `first_nonfinite` found, for an error message."""
    what = "output" if entry["direction"] == "forward" else "gradient of the output"
    values = "value" if entry["count"] == 1 else "values"
    return (
        f"step {entry['step']} has {entry['count']} non-finite {values} in the {what} of layer "
        f"{entry['layer']} ({entry['direction']} pass), the first in order of execution: "
        "what was recorded up to here is in the run folder"
    )
