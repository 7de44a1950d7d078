"""Findings of the explanation of the jumps: shares of the movement, and associations."""

from dataclasses import dataclass

from analyses.accuracy.explanation.links import LAG_NAMES, Link, link_verdict
from analyses.accuracy.explanation.measure import JUMPS, LEARNING, NOISE, REAL, STALE, Decomposition
from analyses.result import Estimate, Finding, Verdict
from analyses.statistics.estimates import share_of
from analyses.statistics.means import MIN_SEEDS, Mean
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number, p_value, share_bound
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said, message

MIN_CHANGES = 3
EXPLAINABLE = message("the part that gradients could explain directly")
HYPOTHESIS = (
    "Most of the movement of validation accuracy[ of {}] is {real}, the part that gradients could "
    "explain directly."
)
NO_CAUSE_CAVEAT = (
    "An association: gradients and accuracy both follow training, and only an intervention can "
    "show whether one changes the other."
)
STALE_BY_UPDATES_CAVEAT = (
    "Large updates of the weights can make running statistics stale: in this way gradients may "
    "affect more than the real part."
)


@dataclass(frozen=True)
class AssociationQuestion:
    """Two series that may go together; `evidence` is the key of the table of correlations."""

    topic: str
    words: str
    hypothesis: str
    evidence: str


GRADIENTS_AND_REAL_CHANGE = AssociationQuestion(
    "association",
    "gradient health and real changes of validation accuracy",
    "Gradient health and real changes of validation accuracy go together[ in {}], apart from the "
    "trend of training.",
    "associations",
)
STALENESS_AND_REMOVED_MOVEMENT = AssociationQuestion(
    "dose",
    "stale running statistics and the movement of accuracy that fresh ones remove",
    "Stale running statistics and the movement of accuracy that fresh ones remove go together[ in "
    "{}], apart from the trend of training.",
    "doses",
)
_NEXT = {
    NOISE: "Hold out more validation images: sampling noise shrinks with their number.",
    STALE: (
        "Judge checkpoints with re-estimated statistics, or raise the running statistics' "
        "momentum, and see whether the jumps return."
    ),
    LEARNING: "Train longer: jumps show once steady learning is over.",
    JUMPS: "Intervene on what changes the weights: learning rate, batch size, skips.",
    REAL: "Train more epochs, so that steady learning and jumps can be separated.",
}


def share_finding(
    network: str,
    found: Decomposition,
    re_estimated: bool,
    half: float,
    caveats: tuple[str, ...] = (),
) -> Finding:
    """Is most of the movement real jumps? The estimates hold all shares."""
    verdict = _verdict(found, half)
    real = found.real.name if found.real else JUMPS
    return Finding(
        key=slug(f"explanation-{network}"),
        network=network,
        hypothesis=with_network(HYPOTHESIS, network, real=Said(real)),
        contradicted_by=f"A share of {real} whose interval lies below {share_bound(half)}.",
        verdict=verdict,
        estimates=_share_estimates(found),
        threshold=(
            f"supported if the 95 % interval of the share lies above {share_bound(half)}; needs "
            f"at least {MIN_CHANGES} changes"
        ),
        meaning=share_sentence({network: found}, half),
        next_step=(
            _NEXT[max(found.shares, key=lambda share: share.value).name]
            if verdict is not Verdict.INCONCLUSIVE
            else message(
                "Train more seeds and epochs, or hold out more images: each narrows the shares."
            )
        ),
        caveats=(*_share_caveats(found, re_estimated), *caveats),
        statement=without_network(HYPOTHESIS, real=Said(real)),
        evidence=("shares",),
    )


def _verdict(found: Decomposition, half: float) -> Verdict:
    if found.real is None or found.changes < MIN_CHANGES:
        return Verdict.INCONCLUSIVE
    return verdict_above(found.real.low, found.real.high, half)


def _share_estimates(found: Decomposition) -> tuple[Estimate, ...]:
    if found.real is None:
        return (Estimate(_share_of(JUMPS), None, method=found.method),)
    others = [share for share in found.shares if share is not found.real]
    return tuple(
        share_of(_share_of(one.name), Mean(one.value, one.low, one.high, found.method))
        for one in (found.real, *others)
    )


def _share_of(part: str) -> str:
    return Said("share of {part}", part=Said(part))


def share_sentence(networks: dict[str, Decomposition], half: float) -> str:
    """The parts of the movement: all parts for one network, the two main ones for several."""
    statements = [
        _share_statement(name, found, half, len(networks) == 1) for name, found in networks.items()
    ]
    return sentence(statements)


def _share_statement(
    network: str, found: Decomposition, half: float, alone: bool
) -> NetworkStatement:
    real = found.real.name if found.real else JUMPS
    clause = {
        Verdict.SUPPORTED: message(
            "most of the movement of validation accuracy is {real}, {explainable}"
        ),
        Verdict.CONTRADICTED: message(
            "most of the movement of validation accuracy is not {real}, {explainable}"
        ),
        Verdict.INCONCLUSIVE: message(
            "it cannot be told whether most of the movement of validation accuracy is {real}, "
            "{explainable}"
        ),
    }[_verdict(found, half)]
    clause = Said(clause, real=Said(real), explainable=Said(EXPLAINABLE))
    if found.real is None:
        return NetworkStatement(network, clause, detail=message("the accuracy does not move"))
    if found.changes < MIN_CHANGES:
        few = Said(
            "{changes} between epochs, too few to tell", changes=plural(found.changes, "change")
        )
        return NetworkStatement(network, clause, detail=few)
    parts = sorted(found.shares, key=lambda one: (one is not found.real, -one.value))
    shown = parts if alone else parts[:2]
    others = [share for share in found.shares if share is not found.real]
    named = zip((found.real, *others), _share_estimates(found), strict=True)
    estimates = {share.name: one for share, one in named}
    amounts = [
        Said(
            "{part} are {share}" if one.name == JUMPS else "{part} {share}",
            part=Said(one.name),
            share=estimates[one.name].words,
        )
        for one in shown
    ]
    return NetworkStatement(network, clause, detail=listing(amounts))


def _share_caveats(found: Decomposition, re_estimated: bool) -> tuple[str, ...]:
    speaks = (
        f"The intervals are about other seeds; {found.seeds} seeds make them wide."
        if found.seeds >= MIN_SEEDS
        else f"The intervals are about other images, not about other seeds ({found.seeds} here)."
    )
    if not re_estimated:
        return (
            "Batch-norm statistics were not re-estimated: if the network has any, the movement "
            "that stale ones add counts as real.",
            speaks,
        )
    outside = [share.name for share in found.shares if not 0 <= share.value <= 1]
    apart = found.share(REAL) is not None
    return (
        STALE_BY_UPDATES_CAVEAT,
        speaks,
        *(("Steady learning and jumps are not separated: some run has too few epochs.",) * apart),
        *(
            (
                f"Outside 0 to 100 %: {listing(outside)}. This can happen, since noise is "
                "subtracted and re-estimation may add movement; the tables give the numbers.",
            )
            * bool(outside)
        ),
    )


def link_finding(
    network: str, found: Link, re_estimated: bool, alpha: float, strong: float
) -> Finding:
    """Does gradient health go with the real change of accuracy?"""
    caveat = "Sampling noise in the changes weakens every correlation with them."
    stale = (
        "Statistics were not re-estimated: the change includes the movement that stale ones add."
    )
    return _association_finding(
        GRADIENTS_AND_REAL_CHANGE,
        network,
        found,
        (alpha, strong),
        (NO_CAUSE_CAVEAT, caveat, *(() if re_estimated else (stale,))),
    )


def staleness_finding(network: str, found: Link, alpha: float, strong: float) -> Finding:
    """Does the staleness of the statistics go with the movement that re-estimation removes?"""
    caveat = (
        "A dose-response by epoch is an association; the intervention is that re-estimating the "
        "statistics removes the movement."
    )
    return _association_finding(
        STALENESS_AND_REMOVED_MOVEMENT, network, found, (alpha, strong), (caveat,)
    )


def _association_finding(
    what: AssociationQuestion,
    network: str,
    found: Link,
    bounds: tuple[float, float],
    caveats: tuple[str, ...],
) -> Finding:
    alpha, strong = bounds
    verdict = link_verdict(found, alpha, strong)
    return Finding(
        key=slug(f"{what.topic}-{network}"),
        network=network,
        hypothesis=with_network(what.hypothesis, network),
        contradicted_by=f"Intervals of all correlations that exclude {strong} and -{strong}.",
        verdict=verdict,
        estimates=(_link_estimate(found),),
        threshold=(
            f"supported if the permutation test of the strongest gives p < {number(alpha)}; "
            "inconclusive if no permutation could"
        ),
        meaning=link_sentence(what, {network: found}, alpha, strong),
        next_step=(
            message(
                "Record at least 4 seeds: a permutation test over seeds is exact. More epochs and "
                "seeds narrow the intervals."
            )
            if verdict is Verdict.INCONCLUSIVE
            else "Change one of the two by an intervention, and see whether the other changes too."
        ),
        caveats=caveats,
        statement=without_network(what.hypothesis),
        evidence=(what.evidence,),
    )


def _link_estimate(found: Link) -> Estimate:
    association = found.association
    if association is None:
        return Estimate("strongest rank correlation", None, method=f"none: {found.missing}")
    quantity, lag = found.strongest
    low, high = association.interval(association.strongest)
    return Estimate(
        Said(
            "Spearman correlation with {quantity}, {lag}",
            quantity=Said(quantity),
            lag=Said(LAG_NAMES[lag]),
        ),
        association.correlations[association.strongest],
        low,
        high,
        method=(
            f"permutation ({association.permuted}) with maximum statistic over "
            f"{len(found.correlated)} correlations {p_value(association.p_value)}, smallest "
            f"possible {number(association.smallest_p)}; "
            f"{plural(association.observations, 'change')} in {plural(found.runs, 'seed')}"
        ),
    )


def link_sentence(
    what: AssociationQuestion, networks: dict[str, Link], alpha: float, strong: float
) -> str:
    """Whether the two go together in each network, in one sentence."""
    statements = [
        _link_statement(what, name, found, alpha, strong) for name, found in networks.items()
    ]
    return sentence(statements, "the strongest correlation is {}")


def _link_statement(
    what: AssociationQuestion, network: str, found: Link, alpha: float, strong: float
) -> NetworkStatement:
    clause = {
        Verdict.SUPPORTED: f"{what.words} go together, an association",
        Verdict.CONTRADICTED: f"{what.words} do not go together strongly",
        Verdict.INCONCLUSIVE: f"it cannot be told whether {what.words} go together",
    }[link_verdict(found, alpha, strong)]
    association = found.association
    if association is None:
        return NetworkStatement(network, clause, detail=found.missing)
    if association.smallest_p >= alpha:
        there = f"{plural(found.changes, 'change')} in {plural(found.runs, 'seed')}"
        least = f"{there} allow no p-value below {number(association.smallest_p)}"
        return NetworkStatement(network, clause, detail=least)
    quantity, lag = found.strongest
    rho = _link_estimate(found).words
    test = f"{p_value(association.p_value)} among {len(found.correlated)} correlations"
    return NetworkStatement(
        network, clause, f"rho = {rho} with {quantity} of the {LAG_NAMES[lag]} ({test})"
    )
