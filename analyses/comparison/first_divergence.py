"""What diverged first: in which step and layer do two experiments begin to differ?

Asked if several experiments are compared. Two runs of one seed are equal until something differs,
but for rounding: the first step and layer that differ are where to look. Where each experiment has
several seeds, the first place is named in which they differ by more than seeds do. The hypothesis
is contradicted for a pair of runs that stay equal, and open where they drift apart as rounding
makes runs do, or where too few seeds can tell.
"""

from collections.abc import Sequence

import pandas as pd

from analyses.comparison.divergence import (
    ALPHA,
    JUMP,
    ROUNDING,
    Divergence,
    Place,
    beyond_seeds,
    fewest_seeds,
    first_difference,
)
from analyses.comparison.question import pair_runs
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Finding, Length, Table, Verdict
from analyses.wording.numbers import finite, number, told_apart
from analyses.wording.phrases import plural, slug
from gradflow.runs.reading.run import Experiment, Run

_ALIKE = "Take the two as one training until the last of these steps."
_DRIFT = (
    "Rounding that a training amplifies looks like this: repeat one of them with "
    "torch.use_deterministic_algorithms(True), and see whether it repeats itself."
)


def run(experiment: Experiment) -> AnalysisResult:
    """Compare every member of `experiment` with the first, by pairs of one seed and by groups.

    Raises `NotApplicableError` for a single experiment, if no two runs share a network and seed and
    no network has enough seeds on both sides, or if they recorded no common step.
    """
    if not experiment.members:
        raise NotApplicableError("a single experiment was given: name two folders to compare them")
    first, *others = zip(experiment.members, experiment.description["labels"], strict=True)
    findings: list[Finding] = []
    rows: list[dict[str, object]] = []
    for other in others:
        labels = first[1], other[1]
        for name, ours, theirs in pair_runs(first[0], other[0]):
            if ours.seed != theirs.seed or ours.network is None:
                continue
            found = first_difference(ours, theirs)
            if found is not None:
                findings.append(_of_pair(labels, name, found))
                rows.append(_row(labels[1], name, "of one seed", found.place, found.steps))
        for name, ours_, theirs_ in _groups(first[0], other[0]):
            found_ = beyond_seeds(ours_, theirs_)
            if found_ is not None:
                findings.append(_of_groups(labels, name, len(ours_), len(theirs_), *found_))
                rows.append(_row(labels[1], name, "of several seeds", found_[0], None))
    if not findings:
        raise NotApplicableError(
            "no two runs share network, seed and a recorded step, and no network has "
            f"{fewest_seeds()} seeds in each experiment: record the same seed in both"
        )
    return AnalysisResult(
        summary=" ".join(one.meaning for one in findings[:3]),
        findings=tuple(findings),
        figures=(),
        tables=(
            Table("first-places", "Where they differ first", pd.DataFrame(rows), Length.STANDARD),
        ),
        method=(
            "At each step that both recorded, in the order of a step: the norms of parameters, "
            "root mean squares of outputs from the input on, the loss, norms of gradients from the "
            "output on, norms of the parameters' gradients and updates. Runs of one seed differ "
            f"beyond rounding where a relative difference is above {ROUNDING:g} and {JUMP:g} times "
            "the largest one in all steps before. Groups of seeds: the difference of the mean "
            "logarithms over the pooled standard deviation, to which the quantity's median one is "
            "added (Tusher et al. 2001), against the largest one over all steps, layers and "
            f"quantities when runs are assigned to the groups anew: {100 * ALPHA:g} % of the "
            "assignments reach it anywhere (Westfall & Young 1993)."
        ),
        sources=(
            "Westfall & Young 1993, Resampling-based multiple testing",
            "Tusher, Tibshirani & Chu 2001, Significance analysis of microarrays",
        ),
    )


def _groups(
    first: Experiment, second: Experiment
) -> list[tuple[str, Sequence[Run], Sequence[Run]]]:
    """Networks that both experiments trained with several seeds, and their runs."""
    return [
        (name, first.of_network(name), second.of_network(name))
        for name in first.networks
        if len(first.of_network(name)) > 1 and len(second.of_network(name)) > 1
    ]


def _of_pair(labels: tuple[str, str], name: str, found: Divergence) -> Finding:
    place = found.place
    value = None if place is None else _apart(place)
    if place is not None:
        verdict, next_step = Verdict.SUPPORTED, _where_to_look(place)
        was, now = told_apart(place.first, place.second)
        said = (
            f"{labels[1]} and {labels[0]} ({name}) differ first in step {place.step}, in "
            f"{place.what}: {now} in place of {was}; before it "
            f"no number differs by more than {number(found.before)} of itself."
        )
    elif found.drifts_from is not None:
        verdict, next_step = Verdict.INCONCLUSIVE, _DRIFT
        said = (
            f"{labels[1]} and {labels[0]} ({name}) drift apart little by little, beyond "
            f"{ROUNDING:g} from step {found.drifts_from} on, and nowhere at once."
        )
    else:
        verdict, next_step = Verdict.CONTRADICTED, _ALIKE
        said = (
            f"{labels[1]} and {labels[0]} ({name}) are equal within rounding in all "
            f"{plural(found.steps, 'common step')}."
        )
    return Finding(
        key=slug(f"divergence-{labels[1]}-{labels[0]}-{name}"),
        network=name,
        hypothesis=f"{labels[1]} and {labels[0]} differ at some step beyond rounding.",
        contradicted_by="Equal numbers, within rounding, in all common steps.",
        verdict=verdict,
        estimates=(
            Estimate(
                "relative difference at the first place",
                value,
                method=f"of one number in {plural(found.steps, 'common step')}; no interval",
            ),
        ),
        threshold=(
            f"supported if a number differs by more than {ROUNDING:g} of itself, and {JUMP:g} "
            "times more than any in the steps before"
        ),
        meaning=said,
        next_step=next_step,
        caveats=(
            "Only what was recorded in both is compared: the cause may lie in what was not, such "
            "as the data, or in a step that was not recorded.",
        ),
        statement=f"{labels[1]} and {labels[0]} differ at some step beyond rounding.",
        evidence=("first-places",),
    )


def _of_groups(
    labels: tuple[str, str],
    network: str,
    ours: int,
    theirs: int,
    place: Place | None,
    assignments: int,
) -> Finding:
    sides = f"{plural(ours, 'run')} and {plural(theirs, 'run')}"
    if place is None:
        said = (
            f"{labels[1]} and {labels[0]} ({network}) differ nowhere by more than seeds do, in "
            f"{sides}."
        )
    else:
        was, now = told_apart(place.first, place.second)
        said = (
            f"{labels[1]} and {labels[0]} ({network}) differ by more than seeds do from step "
            f"{place.step} on, first in {place.what}: {now} in place of {was} (geometric means of "
            f"{sides})."
        )
    return Finding(
        key=slug(f"divergence-seeds-{labels[1]}-{labels[0]}-{network}"),
        network=network,
        hypothesis=f"{labels[1]} and {labels[0]} differ at some step by more than seeds do.",
        contradicted_by="Nothing: without a place, more seeds may still find one.",
        verdict=Verdict.INCONCLUSIVE if place is None else Verdict.SUPPORTED,
        estimates=(
            Estimate(
                "ratio at the first place",
                None if place is None else finite(place.second / place.first),
                method=f"geometric means of {sides}; {assignments} assignments; no interval",
            ),
        ),
        threshold=(
            "supported if some number lies beyond what the largest of all numbers reaches in "
            f"{100 * ALPHA:g} % of the assignments of runs to the two sides"
        ),
        meaning=said,
        next_step="Train more seeds of both." if place is None else _where_to_look(place),
        caveats=("Seeds must be comparable: the same steps, data and networks on both sides.",),
        statement=f"{labels[1]} and {labels[0]} differ at some step by more than seeds do.",
        evidence=("first-places",),
    )


def _apart(place: Place) -> float | None:
    size = max(abs(place.first), abs(place.second))
    return finite(abs(place.first - place.second) / size) if size else None


def _where_to_look(place: Place) -> str:
    if place.what.startswith("the update"):
        return (
            f"Look at what updates {place.name} in step {place.step}: its learning rate, weight "
            "decay, and the optimizer's state."
        )
    if place.what.startswith("the norm"):
        return (
            f"Look at what sets {place.name} before step {place.step}: its initial value or a load."
        )
    if place.what.startswith("the gradient of"):
        return (
            f"Look at what changes the gradient of {place.name} in step {place.step}: a hook, or "
            "what is done to `.grad`."
        )
    if place.what.startswith("the loss"):
        return f"Look at the loss and the targets of step {place.step}."
    return f"Look at the batch of step {place.step}, and at what {place.name} does with it."


def _row(
    label: str, name: str, kind: str, place: Place | None, steps: int | None
) -> dict[str, object]:
    return {
        "experiment": label,
        "runs": name,
        "compared": kind,
        "step": None if place is None else place.step,
        "first in": "nowhere" if place is None else place.what,
        "first value": None if place is None else finite(place.first),
        "second value": None if place is None else finite(place.second),
        "common steps": steps,
    }


ANALYSIS = Analysis(
    key="first_divergence",
    title="What diverged first",
    question="In which step and layer do the experiments begin to differ?",
    run=run,
    background=(
        "Two trainings from one seed are equal until something differs; what differs first is "
        "nearer to the cause than what differs most."
    ),
    order=1,
    comparing=True,
)
