"""The findings on the gradients of a network: whether they vanish, and whether they explode."""

import numpy as np

from analyses.gradients.profile.measure import (
    GradientProfile,
    factor_of_log,
    factor_over_depth,
    raw_ratio,
)
from analyses.health import Thresholds
from analyses.result import LOOK_ELSEWHERE, Estimate, Finding, Length, Verdict
from analyses.statistics.verdicts import verdict_above, verdict_below
from analyses.wording.numbers import finite, number, percent
from analyses.wording.phrases import plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said, message

RAW_RATIO = (
    "The raw ratio of norms compares tensors of different size, so it is not a fair measure of "
    "vanishing; the factor per layer is."
)
NORMALIZED_LAYERS = (
    "If normalization follows a layer, the gradient at its output is inversely proportional to the "
    "scale of that output, and weights of unequal norm change this scale from layer to layer."
)
WEIGHT_GRADIENTS = (
    "Gradients of weights cannot stand in for those of outputs: in a linear regime they stay level "
    "while these vanish (Glorot & Bengio 2010)."
)
HYPOTHESES = {
    "vanish": "The gradients[ of {}] vanish toward the input.",
    "explode": "The gradients[ of {}] explode toward the input.",
}
CLAUSES = {
    "vanish": {
        Verdict.SUPPORTED: message("the gradients vanish toward the input"),
        Verdict.CONTRADICTED: message("the gradients do not vanish"),
        Verdict.INCONCLUSIVE: message("it cannot be told whether the gradients vanish"),
    },
    "explode": {
        Verdict.SUPPORTED: message("the gradients explode toward the input"),
        Verdict.CONTRADICTED: message("the gradients do not explode"),
        Verdict.INCONCLUSIVE: message("it cannot be told whether the gradients explode"),
    },
}
LEAD = message("from the last layer to the first their norm is multiplied by {}")


def _verdict(one: GradientProfile, verb: str, bound: float) -> Verdict:
    per_layer = bound ** (1 / one.depth)
    rule = verdict_below if verb == "vanish" else verdict_above
    low, high = factor_of_log(one.overall.low), factor_of_log(one.overall.high)
    return rule(finite(low), finite(high), per_layer)


def gradient_finding(one: GradientProfile, verb: str, bound: float) -> Finding:
    """The finding on whether gradients `verb` (vanish or explode) beyond `bound` over the depth."""
    verdict = _verdict(one, verb, bound)
    sides = ("below", "above") if verb == "vanish" else ("above", "below")
    return Finding(
        key=slug(f"{verb}-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESES[verb], one.network),
        contradicted_by=f"A factor over the depth whose interval lies {sides[1]} {number(bound)}.",
        verdict=verdict,
        estimates=_estimates(one),
        threshold=(
            f"supported if the 95 % interval of the factor over the depth lies {sides[0]} "
            f"{number(bound)}, contradicted if {sides[1]}"
        ),
        meaning=gradient_sentence([one], verb, bound),
        next_step=_next_step(verb, verdict),
        caveats=_caveats(one),
        statement=without_network(HYPOTHESES[verb]),
        evidence=("factor-by-epoch", "norm-by-depth", "norm-map", "networks", "epochs"),
        # The number that denies the one denies the other as well: it is told under "vanish".
        length=(
            Length.FULL
            if verb == "explode" and verdict is Verdict.CONTRADICTED
            else Length.STANDARD
        ),
        bad_if=Verdict.SUPPORTED,
    )


def _estimates(one: GradientProfile) -> tuple[Estimate, ...]:
    value, low, high = (
        finite(factor_of_log(log)) for log in (one.overall.value, one.overall.low, one.overall.high)
    )
    per_layer = message("factor of the gradient norm per layer toward the input")
    estimates = [
        _over_depth(one),
        Estimate(per_layer, value, low, high, method=one.overall.method),
        Estimate(
            "the same factor of the gradients of the weights, which cannot tell vanishing",
            *factor_over_depth(one, weights=True), method=one.weight_overall.method,
        ),
        Estimate(
            "raw norm at the first layer over that at the last", raw_ratio(one),
            method="ratio of medians over steps; not scale-fair, no interval",
        ),
    ]  # fmt: skip
    if one.first is not None:
        against = ""
        if one.theory is not None:
            against = f"; theory ({one.theory.name}): {number(one.theory.factor)}"
        estimates.append(
            Estimate(
                f"{per_layer}, first step", one.first, method=f"one step, no interval{against}"
            )
        )
    return tuple(estimates)


def _over_depth(one: GradientProfile) -> Estimate:
    return Estimate(
        "factor of the gradient norm from the last layer to the first",
        *factor_over_depth(one),
        method=f"the factor per layer to the power of {one.depth}; {one.overall.method}",
    )


def gradient_sentence(profiles: list[GradientProfile], verb: str, bound: float) -> str:
    """Whether the gradients of each network vanish (or explode), in one sentence."""
    return sentence(
        [_told(one, CLAUSES[verb][_verdict(one, verb, bound)]) for one in profiles], LEAD
    )


def _told(one: GradientProfile, clause: str) -> NetworkStatement:
    factor = _over_depth(one)
    if factor.value is None:
        reason = Said(
            "no three layers of equal output shape had finite gradients other than zero ({zeros})",
            zeros=_zeros(one),
        )
        return NetworkStatement(one.network, clause, detail=reason)
    return NetworkStatement(one.network, clause, factor.words)


def flow_sentence(profiles: list[GradientProfile], bounds: Thresholds) -> str:
    """Whether the gradients of each network vanish or explode, in one sentence."""
    told = []
    for one in profiles:
        vanish = _verdict(one, "vanish", bounds.vanishing)
        explode = _verdict(one, "explode", bounds.exploding)
        if vanish is explode is Verdict.CONTRADICTED:
            clause = message("the gradients neither vanish nor explode")
        elif vanish is explode is Verdict.INCONCLUSIVE:
            clause = message("it cannot be told whether the gradients vanish or explode")
        elif Verdict.SUPPORTED in (vanish, explode):
            clause = CLAUSES["vanish" if vanish is Verdict.SUPPORTED else "explode"][
                Verdict.SUPPORTED
            ]
        else:
            known, other = ("vanish", "explode")
            if vanish is Verdict.INCONCLUSIVE:
                known, other = other, known
            clause = f"the gradients do not {known}, and it cannot be told whether they {other}"
        told.append(_told(one, clause))
    return sentence(told, LEAD)


def _zeros(one: GradientProfile) -> str:
    share = float(np.mean([seed.zeros for seed in one.seeds]))
    return Said("{share} of the recorded gradients are exactly zero", share=percent(share))


def _next_step(verb: str, verdict: Verdict) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        return message("Record more steps, or several seeds, to narrow the interval.")
    if verdict is Verdict.SUPPORTED:
        if verb == "vanish":
            return message(
                "Try He initialization, normalization or skips, and see whether accuracy changes "
                "with the gradients."
            )
        return message(
            "Try gradient clipping, a warm-up of the learning rate or skips, and see whether "
            "accuracy changes with the gradients."
        )
    return LOOK_ELSEWHERE


def _caveats(one: GradientProfile) -> tuple[str, ...]:
    caveats = [RAW_RATIO, WEIGHT_GRADIENTS]
    if any(seed.zeros for seed in one.seeds):
        caveats.append(
            f"{_zeros(one)}: a zero has no logarithm and is left out of the factor; it may mean "
            "dead units, or a branch that starts closed."
        )
    broken = sum(seed.nonfinite for seed in one.seeds)
    if broken:
        caveats.append(f"In {plural(broken, 'step')} some gradient was infinite or not a number.")
    if one.theory is not None:
        caveats += [NORMALIZED_LAYERS] if "norm" in one.theory.name else []
        caveats.append(one.theory.validity)
    return tuple(caveats)
