"""Whether one term of the loss drowns another, or two hold each other up."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import (
    MIN_WINDOW,
    Reading,
    WindowMedians,
    held_since,
    is_beyond,
    verdict_of,
    window_medians,
    window_size,
)
from analyses.reading.loss_terms import LossTerms, Pair, loss_terms
from analyses.result import Verdict
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run

# A term that is less than this share of the loss may be meant to be small, as a regularizer is.
MATTERS = 0.1
# A term that has come below this share of its first value is one that is learned.
FALLEN = 0.9
# Terms that have come below this share of their first values do not hold each other up.
LEARNED = 0.25


@dataclass(frozen=True)
class TermBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        outweighed: for the gradient norm of one term over that of another.
        pulled_back: for the cosine of the gradients of two terms.
    """

    outweighed: float = 50.0
    pulled_back: float = -0.1


def dominated_answer(terms: LossTerms, outweighed: float, max_steps: int) -> Answer:
    """Whether the gradient of a term is drowned by another's in most layers that both reach.

    The median over these layers of the ratio of the two norms is compared with `outweighed`, by
    the medians over the last measured steps. A term that falls is one to be learned: it is drowned
    if it is still a tenth of the loss. One that does not fall may be meant to count so little, as a
    regularizer is: it is drowned if the weights, with which both were given, do not account for it.
    """
    pairs = terms.pair_names()
    if not pairs:
        return NotAsked("dominated", "no two terms of the loss reach the same layer", applies=False)
    readings = [
        _outweighed(terms, one, outweighed, max_steps)
        for pair in pairs
        for one in (pair, (pair[1], pair[0]))
    ]
    return max(readings, key=lambda one: (_RANK[one.verdict], one.value or 0.0))


def conflicting_answer(terms: LossTerms, pulled_back: float, max_steps: int) -> Answer:
    """Whether two terms that both matter pull against each other, and one is not learned for it.

    The cosine of their gradients over all parameters that both reach is compared with
    `pulled_back`, by medians over the last measured steps and over the first: at a minimum the
    gradients of any terms cancel.
    """
    pairs = terms.pair_names("parameter")
    if not pairs:
        reason = "no two terms of the loss reach the same parameter"
        return NotAsked("conflicting", reason, applies=False)
    readings = [_pulled_back(terms, pair, pulled_back, max_steps) for pair in pairs]
    return max(readings, key=lambda one: (_RANK[one.verdict], -(one.value or 0.0)))


_RANK = {Verdict.SUPPORTED: 2, Verdict.INCONCLUSIVE: 1, Verdict.CONTRADICTED: 0}


def _outweighed(terms: LossTerms, pair: Pair, bound: float, max_steps: int) -> Reading:
    strong, weak = pair
    logs = (
        terms.log_ratios(pair) if pair in terms.pair_names() else -terms.log_ratios((weak, strong))
    )
    series = 10.0 ** logs.median(axis=1).dropna()
    medians = window_medians(series.to_numpy(), max_steps)
    verdict = verdict_of(medians, bound, above=True)
    beyond = logs.tail(window_size(len(logs), max_steps)).median() > np.log10(bound)
    note, next_step = "", ""
    if verdict is Verdict.INCONCLUSIVE and medians.low is None:
        next_step = MORE_STEPS
    elif verdict is not Verdict.CONTRADICTED:
        verdict, note, next_step = _is_meant(terms, pair, verdict, medians, bound, max_steps)
    is_found = verdict is Verdict.SUPPORTED
    above = series.to_numpy() > bound
    places = f"{beyond.sum()} of {plural(len(beyond), 'layer')}"
    return Reading(
        condition="dominated",
        verdict=verdict,
        quantity=f"gradient norm of {strong} over that of {weak}, median over layers",
        layer="",
        value=medians.value,
        low=medians.low,
        high=medians.high,
        early_value=medians.early_value,
        held_early=_held_early(medians, verdict, bound, above=True),
        threshold=bound,
        rule=f"above {number(bound)}",
        method=medians.method.replace("recorded", "measured"),
        note=note,
        said=_said_of_ratio(pair, medians) if medians.value is not None else "",
        cause=(
            f"In {places} that both reach, {strong} outweighs {weak} more than {number(bound)} "
            f"times{_by_weight(terms, pair, medians, bound)}. "
            f"{_values_said(terms, weak, max_steps)}"
            if is_found
            else ""
        ),
        next_step=next_step,
        since=held_since(above, series.index.to_numpy(), 1) if is_found else None,
        otherwise=(
            f"If {weak} is meant to count so little, give it with its weight: "
            f'tracer.terms({{"{weak}": (weight, term), ...}}).'
            if is_found and weak not in terms.weights
            else ""
        ),
    )


def _held_early(medians: WindowMedians, verdict: Verdict, bound: float, *, above: bool) -> bool:
    """Whether it held in the first steps; not if it still does and is not what it looks like."""
    is_meant = verdict is Verdict.CONTRADICTED and is_beyond(medians.value, bound, above=above)
    return is_beyond(medians.early_value, bound, above=above) and not is_meant


MORE_STEPS = (
    "Measure the terms in more steps (the argument terms of the tracer), until each end of the "
    f"training has {MIN_WINDOW}."
)


def _is_meant(
    terms: LossTerms,
    pair: Pair,
    verdict: Verdict,
    medians: WindowMedians,
    bound: float,
    max_steps: int,
) -> tuple[Verdict, str, str]:
    """The verdict on a term that is outweighed, or may be; with a note and what to do."""
    strong, weak = pair
    first, last = _ends(terms, weak, max_steps)
    share = _share(terms, weak, max_steps)
    if _drowns_by_weight(terms, pair, medians, bound) and last > LEARNED * first:
        return verdict, "", ""
    if last < FALLEN * first:
        if share >= MATTERS:
            return verdict, "", ""
        return Verdict.CONTRADICTED, f"{_capital(weak)} falls all the same.", ""
    if strong in terms.weights and weak in terms.weights:
        weights = abs(terms.weights[strong]), abs(terms.weights[weak])
        if (medians.value or 0.0) * weights[1] <= bound * weights[0]:
            return (
                Verdict.CONTRADICTED,
                f"{_capital(weak)} counts little, as its weight of {number(weights[1])} says.",
                "",
            )
        return verdict, "", ""
    return (
        Verdict.INCONCLUSIVE,
        f"{_capital(weak)} is {percent(share)} of the loss and may be meant to count so little.",
        f"Give the terms with their weights, {weak} as (weight, term): then it is known whether "
        "the weight accounts for it.",
    )


def _drowns_by_weight(terms: LossTerms, pair: Pair, medians: WindowMedians, bound: float) -> bool:
    """Whether the strong term outweighs the other by a weight of its own, larger than `bound`.

    Not if the weak one's weight, which is below 1, accounts for it too.
    """
    strong, weak = (abs(terms.weights.get(name, 1.0)) for name in pair)
    return strong > bound and (medians.value or 0.0) * min(weak, 1.0) > bound


def _pulled_back(terms: LossTerms, pair: Pair, bound: float, max_steps: int) -> Reading:
    cosines = terms.shared_cosines(pair)
    medians = window_medians(cosines.to_numpy(), max_steps)
    verdict = verdict_of(medians, bound, above=False)
    note = ""
    if verdict is not Verdict.CONTRADICTED and medians.low is not None:
        from_the_start = is_beyond(medians.early_value, bound, above=False)
        if from_the_start:
            note = _why_not_held(terms, pair, max_steps)
        elif verdict is Verdict.SUPPORTED:
            note = _ONLY_LATE
        verdict = Verdict.CONTRADICTED if note or not from_the_start else verdict
    is_found = verdict is Verdict.SUPPORTED
    below = cosines.to_numpy() < bound
    scores = terms.conflict_scores(pair)
    worst = str(scores.idxmax()) if len(scores) else ""
    one, other = pair
    return Reading(
        condition="conflicting",
        verdict=verdict,
        quantity=f"cosine of the gradients of {one} and {other}, over the parameters of both",
        layer="",
        value=medians.value,
        low=medians.low,
        high=medians.high,
        early_value=medians.early_value,
        held_early=_held_early(medians, verdict, bound, above=False),
        threshold=bound,
        rule=f"below {number(bound)}",
        method=medians.method.replace("recorded", "measured"),
        note=note,
        said=_said_of_cosine(pair, medians) if medians.value is not None else "",
        cause=(
            f"{_values_said(terms, one, max_steps)} {_values_said(terms, other, max_steps)} They "
            f"conflict most at {worst}: in {percent(float(scores.max()))} of the measured steps."
            if is_found and worst
            else ""
        ),
        next_step=MORE_STEPS if medians.low is None else "",
        since=held_since(below, cosines.index.to_numpy(), 1) if is_found else None,
        otherwise=(
            "Terms that agree on nothing look like this at their compromise too: train with each "
            "alone, and see what it reaches."
            if is_found
            else ""
        ),
    )


_ONLY_LATE = (
    "The gradients are opposed in the last steps only: at a minimum those of any terms cancel."
)


def _why_not_held(terms: LossTerms, pair: Pair, max_steps: int) -> str:
    """Why two terms whose gradients may be opposed do not hold each other up; empty if they may."""
    opposed = f"The gradients of {pair[0]} and {pair[1]} are opposed, but"
    for name in pair:
        if min(_first_share(terms, name), _share(terms, name, max_steps)) < MATTERS:
            return f"{opposed} {name} is a small part of the loss, as that of a regularizer."
    ends = [_ends(terms, name, max_steps) for name in pair]
    if all(last <= LEARNED * first for first, last in ends):
        return f"{opposed} both are learned."
    return ""


def _ends(terms: LossTerms, name: str, max_steps: int) -> tuple[float, float]:
    """The first value of a term, and the median of the last ones."""
    values = terms.values[name].dropna()
    if values.empty:
        return float("nan"), float("nan")
    return float(values.iloc[0]), float(values.tail(window_size(len(values), max_steps)).median())


def _share(terms: LossTerms, name: str, max_steps: int) -> float:
    """The share of a term in the sum of all magnitudes, in the last measured steps."""
    last = terms.values.tail(window_size(len(terms.values), max_steps)).abs().median()
    return _part(last, name)


def _first_share(terms: LossTerms, name: str) -> float:
    return _part(terms.values.iloc[0].abs(), name)


def _part(values: pd.Series, name: str) -> float:
    total = float(values.sum())
    return float(values[name]) / total if total > 0 else 0.0


def _values_said(terms: LossTerms, name: str, max_steps: int) -> str:
    first, last = _ends(terms, name, max_steps)
    share = percent(_share(terms, name, max_steps))
    went = "is" if number(first) == number(last) else f"went from {number(first)} to"
    return f"{_capital(name)} {went} {number(last)}, {share} of the loss."


def _said_of_ratio(pair: Pair, medians: WindowMedians) -> str:
    value = medians.value or 0.0
    return f"the gradient of {pair[0]} is {number(value)} times that of {pair[1]}"


def _said_of_cosine(pair: Pair, medians: WindowMedians) -> str:
    return (
        f"the cosine of the gradients of {pair[0]} and {pair[1]} is {number(medians.value or 0.0)}"
    )


def _by_weight(terms: LossTerms, pair: Pair, medians: WindowMedians, bound: float) -> str:
    """That the weight of the strong term is why, as the end of a sentence; or ""."""
    if not _drowns_by_weight(terms, pair, medians, bound):
        return ""
    return f", by its weight of {number(abs(terms.weights[pair[0]]))}"


def _capital(name: str) -> str:
    return f"The term {name}"


def _read(run: Run, bounds: TermBounds) -> list[Answer]:
    terms = loss_terms(run)
    if terms is None or len(terms.names) < 2:
        reason = "no terms of the loss were given (Tracer.terms)"
        if terms is not None:
            reason = "the loss has one term alone"
        return [NotAsked(key, reason) for key in ("dominated", "conflicting")]
    return [
        dominated_answer(terms, bounds.outweighed, bounds.last_steps),
        conflicting_answer(terms, bounds.pulled_back, bounds.last_steps),
    ]


DOMINATED = Condition(
    key="dominated",
    hypothesis="One term of the loss[ of {}] drowns another.",
    holds="one term of the loss drowns another",
    fails="no term of the loss drowns another",
    unknown="it cannot be told whether one term of the loss drowns another",
    contradicted_by="A ratio of the terms' gradients whose interval lies below the bound.",
    next_step=(
        "Weigh the terms so that their gradients are of like size: scale targets to a standard "
        "deviation of 1, divide the strong term, or let the weights follow the gradients."
    ),
    to_ask='Give the terms of the loss before the backward pass: tracer.terms({"data": a, ...}).',
    source="Wang, Teng & Perdikaris 2021, Understanding and mitigating gradient flow pathologies",
    read=_read,
    bound="outweighed",
    method=(
        "Dominated: the ratio of two terms' gradient norms, the median over the layers that both "
        f"reach. A term that falls counts if it is still {percent(MATTERS)} of the loss, another "
        "one if the weights do not account for the ratio; under a weight larger than the bound, "
        f"any that has not come below {percent(LEARNED)} of its first value."
    ),
    leads_to=("not-learning",),
    needed=False,
)
CONFLICTING = Condition(
    key="conflicting",
    hypothesis="Two terms of the loss[ of {}] hold each other up.",
    holds="two terms of the loss hold each other up",
    fails="no two terms of the loss hold each other up",
    unknown="it cannot be told whether two terms of the loss hold each other up",
    contradicted_by="A cosine of the terms' gradients whose interval lies above the bound.",
    next_step=(
        "See whether the terms ask for the same of the same outputs. If they are tasks, give the "
        "parameters that conflict most to each on its own (Shi et al. 2023), or project the "
        "gradients (Yu et al. 2020)."
    ),
    to_ask='Give the terms of the loss before the backward pass: tracer.terms({"data": a, ...}).',
    source="Yu et al. 2020, Gradient surgery for multi-task learning",
    read=_read,
    bound="pulled_back",
    method=(
        "Conflicting: the cosine of two terms' gradients over all parameters that both reach; "
        f"counted if it is below the bound in the first steps too, if both are at least "
        f"{percent(MATTERS)} of the loss, at first and at last, and if not both have come below "
        f"{percent(LEARNED)} of their first values."
    ),
    leads_to=("not-learning",),
    needed=False,
)
