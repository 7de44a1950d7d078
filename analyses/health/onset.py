"""Why gradients vanish over depth that at first did not: the first updates have closed the way.

A network whose blocks normalize behind their additions (post-norm) has gradients of nearly equal
size at all blocks at initialization, and depends strongly on the branches of its blocks: large
first updates move its outputs far, and then next to nothing reaches the first blocks (Xiong et al.
2020; Liu et al. 2020).
"""

import numpy as np
import pandas as pd

from analyses.health.readings import LAST_STEPS
from analyses.wording.numbers import number
from gradflow.runs.reading.run import Run

ADVICE = "Warm the learning rate up, lower it, or normalize before each block (pre-norm)."
OPEN = 0.1  # factor over the depth in the first step, from which on the gradient reaches all layers


def onset_cause(run: Run, factors: pd.Series, bound: float, places: list[str]) -> str:
    """Say that updates have made the gradient vanish, and what they are by layer; "" if not so.

    Args:
        run: in which it vanishes.
        factors: from the last of `places` to the first, by recorded step.
        bound: below it, the gradient vanishes.
        places: layers, from input to output.
    """
    known = factors.droplevel([one for one in factors.index.names if one != "step"]).dropna()
    below = known.index[known < bound]
    if not len(below) or known.iloc[0] < OPEN or below[0] == known.index[0]:
        return ""
    first, since = known.index[0], below[0]
    updates = run.parameters[["step", "parameter", "update_to_weight"]].dropna()
    early = updates[updates["step"] < since]["update_to_weight"]
    size = f" of about {number(float(early.median()))} of the weights each" if len(early) else ""
    said = (
        f"In step {first} it still reached {places[0]} (factor {number(float(known.iloc[0]))}), "
        f"from step {since} on it does not: the first updates{size} have closed the way, not the "
        f"initialization.{_now(updates, places)}"
    )
    if _normalizes_last(run, places):
        said += " The blocks normalize behind their additions (post-norm), where this is known."
    return said


def _now(updates: pd.DataFrame, places: list[str]) -> str:
    """The updates of the first and the last layer at the end, in a sentence."""
    steps = np.unique(updates["step"])[-LAST_STEPS:]
    last = updates[updates["step"].isin(steps)]
    sizes = []
    for place in (places[0], places[-1]):
        own = last[last["parameter"].str.startswith(f"{place}.")]["update_to_weight"]
        if not len(own):
            return ""
        sizes.append(f"{number(float(own.median()))} at {place}")
    return f" By the end, updates are {sizes[0]} and {sizes[1]}."


def _normalizes_last(run: Run, places: list[str]) -> bool:
    """Whether the last layer in most of these blocks is a normalization."""
    names, roles = run.layers["layer"].tolist(), run.layers["role"].tolist()
    before = {name: place - 1 for place, name in enumerate(names) if place}
    found = [
        roles[before[one]] == "normalization" and names[before[one]].startswith(f"{one}.")
        for one in places
        if one in before
    ]
    return len(found) > 0 and 2 * sum(found) > len(found)
