"""What of the gradient reaches each position of a sequence?

Description only: whether a gradient vanishes through time is asked by the health check.
"""

from functools import partial

import numpy as np
import pandas as pd

from analyses.gradients.positions.figures import LEAST, draw_courses
from analyses.gradients.positions.measure import Course, courses
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Length, Table
from analyses.wording.numbers import number
from analyses.wording.phrases import listing, slug
from gradflow.runs.reading.run import Experiment

MOST_PANELS = 3


def run(experiment: Experiment) -> AnalysisResult:
    """Show gradient norms by position of the first run of each network that has them.

    Raises `NotApplicableError` if no run recorded them.
    """
    shown: dict[str, list[Course]] = {}
    for network, runs in by_network(list(experiment.runs)).items():
        found = next((known for one in runs if (known := courses(one))), None)
        if found:
            shown[network] = found
    if not shown:
        raise NotApplicableError(
            "no run recorded gradients by position: the network has no recurrent layer and no "
            "output in which positions of a sequence can be told from samples and channels"
        )
    return AnalysisResult(
        summary=" ".join(_sentence(network, found) for network, found in shown.items()),
        findings=(),
        figures=tuple(_figure(network, found) for network, found in shown.items()),
        tables=(Table("positions", "The gradient by position in the last steps", _table(shown)),),
        method=(
            "The norm of the gradient with respect to what a layer's tensor holds of a position, "
            "over all samples, relative to the largest of the same step; positions in at most 32 "
            "bins, of which the root mean square counts. Of recurrent layers that run through time "
            "by themselves, it is the gradient that reaches their inputs; of modules in a loop, "
            "that of the output of each call. Medians over the last recorded steps of one run a "
            "network. Only steps with sequences as long as the last ones count."
        ),
        sources=("Pascanu et al. 2013, On the difficulty of training recurrent neural networks",),
    )


def _panels(found: list[Course]) -> list[Course]:
    """The courses to draw: recurrences, otherwise the first, middle and last layer."""
    recurrences = [one for one in found if one.tensor != "output"]
    pool = recurrences or found
    places = np.linspace(0, len(pool) - 1, min(len(pool), MOST_PANELS)).round().astype(int)
    return [pool[place] for place in places]


def _sentence(network: str, found: list[Course]) -> str:
    one = _panels(found)[0]
    first, last = one.at(0), one.at(1)
    if first is None or last is None:
        return f"Of {network}, the last steps have no gradient by position."
    return (
        f"In {network}, the gradient at the first of {one.positions} positions is {number(first)} "
        f"of the largest, at the last one {number(last)} ({one.name}, in the last steps)."
    )


def _figure(network: str, found: list[Course]) -> Figure:
    drawn = _panels(found)
    left_out = "" if len(drawn) == len(found) else " The table has the other layers."
    return Figure(
        key=slug(f"positions-{network}"),
        title=_sentence(network, found).rstrip("."),
        caption=(
            "The gradient norm by position (from below) and step, relative to the largest of its "
            f"step; below {LEAST:g} the colour stays the same, and grey is exactly 0.{left_out}"
        ),
        alt=f"Heat maps by position and step of the {listing([one.name for one in drawn])}.",
        draw=partial(draw_courses, drawn),
        length=Length.FULL,
    )


def _table(shown: dict[str, list[Course]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": network,
                "of": one.name,
                "positions": one.positions,
                "first": one.at(0),
                "at a quarter": one.at(0.25),
                "middle": one.at(0.5),
                "last": one.at(1),
            }
            for network, found in shown.items()
            for one in found
        ]
    )


ANALYSIS = Analysis(
    key="positions",
    title="Gradients in time",
    question="What of the gradient reaches each position of a sequence?",
    run=run,
    background=(
        "A network that reads a sequence step by step learns from an early input only what is left "
        "of the gradient on its way back to it."
    ),
    order=85,
)
