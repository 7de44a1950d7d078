"""Whether a gradient grows at one place because a part of the loss enters there, between layers.

A model that returns several tensors, as a variational autoencoder returns its code beside its
images, may have a loss that reads each of them. A part of it that reads inner layers adds to their
gradient and not to that of the layers behind them. Over depth this looks as if the gradient grew.
"""

from dataclasses import replace

import numpy as np

from analyses.health.readings import LAST_STEPS, Reading, window_size
from analyses.reading.loss_terms import LossTerms, loss_terms
from analyses.reading.model_tensors import outputs_of
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.wording.numbers import number, percent
from gradflow.conditions.depth import factor_range
from gradflow.runs.format.term_tables import LAYER_KIND
from gradflow.runs.reading.run import Run

AT_ONE_PLACE = 0.7  # of the logarithm of the whole growth


def unless_entering(run: Run, one: Reading, places: list[str], norms: Array, stage: Array,
                    sizes: Array | None) -> Reading:  # fmt: skip
    """`one`, a reading of exploding gradients, or what it is if a part of the loss enters midway.

    Contradicted if the terms of the loss were measured and the gradient of none explodes by itself;
    open if they were not, the model returns several tensors, and the growth is at one place.

    Args:
        places: the layers, from input to output.
        norms: of the gradient at these, [steps, places].
        stage, sizes: of the places, see `factor_range`.
    """
    if one.verdict is not Verdict.SUPPORTED:
        return one
    terms = loss_terms(run)
    if terms is not None and len(terms.names) > 1:
        grown = _grown_by_itself(terms, places, stage, sizes)
        if grown is None or grown[1] > one.threshold:
            return one
        return replace(
            one,
            verdict=Verdict.CONTRADICTED,
            held_early=False,
            note="It grows where a term of the loss enters: toward the input, that of each term by "
            f"itself changes by a factor of {number(grown[1])} at most ({grown[0]}).",
        )
    jump = _jump(norms)
    if jump is None or _returned(run) < 2:
        return one
    place, share = jump
    return replace(
        one,
        verdict=Verdict.INCONCLUSIVE,
        note=f"{percent(share)} of the growth is at one place, {places[place]}, and the model "
        "returns several tensors: a part of the loss that reads an inner one, and is far larger "
        "than the others, looks like this.",
        next_step='Give the terms of the loss: tracer.terms({"data": a, "prior": b}). Then it is '
        "known whether one drowns the others.",
    )


def _grown_by_itself(
    terms: LossTerms, places: list[str], stage: Array, sizes: Array | None
) -> tuple[str, float] | None:
    """The term whose own gradient grows most over the layers that it reaches, and how much."""
    rows = terms.terms[terms.terms["kind"] == LAYER_KIND]
    found = []
    for name in terms.names:
        own = rows[rows["term"] == name].pivot_table(
            index="step", columns="place", values="gradient_norm"
        )
        own = own.reindex(columns=places)
        reached = (own > 0).any().to_numpy()
        if reached.sum() < 2:
            continue
        small, _ = factor_range(
            own.to_numpy(float)[:, reached], stage[reached], None if sizes is None
            else sizes[reached],
        )  # fmt: skip
        last = small[-window_size(len(small), LAST_STEPS) :]
        if np.isfinite(last).any():
            found.append((name, float(np.nanmedian(last))))
    return max(found, key=lambda one: one[1], default=None)


def _jump(norms: Array) -> tuple[int, float] | None:
    """The place before which most of the growth is, and its share; None if it is at no one place.

    Growth is counted from the output to the input; places whose gradient is 0 are left out.
    """
    last = norms[-window_size(len(norms), LAST_STEPS) :]
    middle = np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any()
                       else np.nan for column in last.T])  # fmt: skip
    known = np.flatnonzero(np.isfinite(middle) & (middle > 0))
    logs = np.log(middle[known])
    if len(known) < 3 or logs[0] <= logs[-1]:
        return None
    steps = logs[:-1] - logs[1:]
    place = int(np.argmax(steps))
    share = float(steps[place] / (logs.max() - logs[-1]))
    return (int(known[place]), share) if share >= AT_ONE_PLACE else None


def _returned(run: Run) -> int:
    """How many tensors of floats the model returns for a batch."""
    outputs = outputs_of(run)
    return int(outputs["place"].nunique()) if len(outputs) else 0
