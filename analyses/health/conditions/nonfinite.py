"""Values that are not finite, in one run."""

from typing import Any

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.losses.climbing import SIGN
from analyses.health.conditions.steps import climb_before
from analyses.health.readings import Reading, held_since
from analyses.result import Verdict
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run


def nonfinite_answer(run: Run) -> Answer:
    """Whether a NaN or infinite value was recorded, and where the first one was.

    Not asked if neither activations nor gradients were recorded.
    """
    if not len(run.activations) and not len(run.gradients):
        return NotAsked("non-finite", "neither activations nor gradients were recorded")
    counts = _counts(run)
    first: dict[str, Any] = run.description.get("first_nonfinite") or _first_of(counts) or {}
    recorded = run.activations["step"] if len(run.activations) else run.gradients["step"]
    steps = recorded.nunique()
    broken = {int(step) for _, rows in counts for step in rows["step"]}
    numbers = np.unique(recorded.to_numpy())
    since = held_since(np.isin(numbers, list(broken)), numbers)
    climb = None if since is None else climb_before(run, since)
    return Reading(
        "non-finite",
        Verdict.SUPPORTED if first else Verdict.CONTRADICTED,
        "number of recorded steps with a value that is NaN or infinite",
        str(first["layer"]) if first else "",
        float(len(broken)),
        None,
        None,
        None,
        bool(first) and int(first["step"]) == int(recorded.min()),
        0.0,
        "any such value",
        f"count over {plural(steps, 'recorded step')}; no interval: nothing was sampled",
        ""
        if not first
        else (
            f"The first was in step {first['step']} of epoch {first['epoch']}, "
            f"{'the output' if first['direction'] == 'forward' else 'the gradient of the output'} "
            f"of layer {first['layer']} ({first['direction']} pass)."
        ),
        cause="" if climb is None else climb.clause,
        next_step="" if climb is None else SIGN,
        since=since,
    )


def _counts(run: Run) -> list[tuple[str, pd.DataFrame]]:
    """Rows with non-finite values by direction, without gradients of steps that were skipped."""
    skipped = run.steps.loc[run.steps["skipped"].astype(bool), "step"] if len(run.steps) else []
    gradients = run.gradients[run.gradients["nonfinite"] > 0]
    return [
        ("forward", run.activations[run.activations["nonfinite"] > 0]),
        ("backward", gradients[~gradients["step"].isin(skipped)]),
    ]


def _first_of(counts: list[tuple[str, pd.DataFrame]]) -> dict[str, Any] | None:
    """The first value among `counts`: epoch, step, layer, direction; None if there is none.

    For runs whose description lacks this entry. Within a step the forward pass comes first.
    """
    found = [
        {"direction": direction, **rows.sort_values("step", kind="stable").iloc[0].to_dict()}
        for direction, rows in counts
        if len(rows)
    ]
    return min(found, key=lambda entry: int(entry["step"]), default=None)


def _read(run: Run, _: Bounds) -> list[Answer]:
    return [nonfinite_answer(run)]


NON_FINITE = Condition(
    key="non-finite",
    hypothesis="Some recorded values[ of {}] are not finite.",
    holds="some recorded values are not finite",
    fails="all recorded values are finite",
    unknown="it cannot be told whether values are not finite",
    contradicted_by="No such value in any recorded step.",
    next_step=(
        "Look at the layer named here: a division, a logarithm, a square root at zero, or a "
        "learning rate that let the weights run away."
    ),
    source="IEEE 754 (nan and infinity)",
    leads_to=("not-learning",),
    read=_read,
    any_run=True,
)
