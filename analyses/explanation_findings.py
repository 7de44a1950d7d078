"""The findings of what explains the jumps: shares of the movement, and what goes with its parts."""

from analyses.jump_links import LAGS, Link, link_verdict
from analyses.movement_shares import JUMPS, LEARNING, NOISE, REAL, STALE, Decomposition, Share
from analyses.result import Estimate, Finding, Verdict
from analyses.statistics import MIN_SEEDS, verdict_above
from analyses.wording import between, listing, number, p_value, percent, plural, slug

MIN_CHANGES = 3
NO_CAUSE = (
    "An association: gradients and accuracy both follow training, and only an intervention can "
    "tell whether one moves the other."
)
STALE_BY_UPDATES = (
    "Large updates of the weights can make running statistics stale: through them gradients may "
    "act on more than the real part."
)
_NEXT = {
    NOISE: "Hold out more validation images: sampling noise shrinks with their number.",
    STALE: (
        "Judge checkpoints with re-estimated statistics, or raise the running statistics' "
        "momentum, and see whether the jumps return."
    ),
    LEARNING: "Train longer: jumps show where steady learning is over.",
    JUMPS: "Intervene on what moves the weights: learning rate, batch size, shortcuts.",
    REAL: "Train more epochs, so that steady learning can be told from jumps.",
}


def share_finding(
    network: str,
    found: Decomposition,
    re_estimated: bool,
    half: float,
    caveats: tuple[str, ...] = (),
) -> Finding:
    """Is most of the movement real jumps? With all shares, and the one that dominates."""
    told = found.real is not None and found.changes >= MIN_CHANGES
    verdict = (
        verdict_above(found.real.low, found.real.high, half)
        if told and found.real is not None
        else Verdict.INCONCLUSIVE
    )
    real = found.real.name if found.real else JUMPS
    return Finding(
        key=slug(f"explanation-{network}"),
        network=network,
        hypothesis=(
            f"Most of the movement of the validation accuracy of {network} is {real} of its "
            "function, the part that its gradients could explain directly."
        ),
        contradicted_by=f"A share of {real} whose interval lies below {percent(half)}.",
        verdict=verdict,
        estimates=_share_estimates(found),
        threshold=(
            f"supported where the 95 % interval of the share lies above {percent(half)}; a part "
            f"dominates where its own does; asked from {MIN_CHANGES} changes on"
        ),
        meaning=_share_meaning(network, found, verdict, half),
        next_step=(
            _NEXT[max(found.shares, key=lambda share: share.value).name]
            if verdict is not Verdict.INCONCLUSIVE
            else "Train more seeds and epochs, or hold out more images: each narrows the shares."
        ),
        caveats=(*_share_caveats(found, re_estimated), *caveats),
    )


def _share_estimates(found: Decomposition) -> tuple[Estimate, ...]:
    if found.real is None:
        return (Estimate(f"share of {JUMPS}", None, method=found.method),)
    others = [share for share in found.shares if share is not found.real]
    return tuple(
        Estimate(f"share of {one.name}", one.value, one.low, one.high, method=found.method)
        for one in (found.real, *others)
    )


def _share_meaning(network: str, found: Decomposition, verdict: Verdict, half: float) -> str:
    name = f"the validation accuracy of {network}"
    if found.real is None:
        return f"What explains the jumps of {network} cannot be told: its accuracy does not move."
    if found.changes < MIN_CHANGES:
        return (
            f"What explains the jumps of {network} cannot be told from "
            f"{plural(found.changes, 'change')} between epochs."
        )
    real = found.real.name
    words = {
        Verdict.SUPPORTED: f"Most of the movement of {name} is {real}, which its gradients may "
        "explain",
        Verdict.CONTRADICTED: f"Most of the movement of {name} is not {real}, the part that its "
        "gradients could explain",
        Verdict.INCONCLUSIVE: f"Whether most of the movement of {name} is {real}, the part that "
        "its gradients could explain, cannot be told",
    }
    shares = listing([f"{one.name} {_with_interval(one)}" for one in found.shares])
    return f"{words[verdict]}; {_dominating(found, half)}: {shares}."


def _with_interval(share: Share) -> str:
    if share.low is None or share.high is None:
        return f"{percent(share.value)} (no interval)"
    return f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)})"


def _dominating(found: Decomposition, half: float) -> str:
    for share in found.shares:
        if share.low is not None and share.low > half:
            return f"the dominating part is {share.name} (95 % intervals in brackets)"
    return "no part is sure to dominate (95 % intervals in brackets)"


def _share_caveats(found: Decomposition, re_estimated: bool) -> tuple[str, ...]:
    speaks = (
        f"The intervals speak of other seeds; {found.seeds} seeds make them wide."
        if found.seeds >= MIN_SEEDS
        else f"The intervals speak of other images, not of other seeds ({found.seeds} here)."
    )
    if not re_estimated:
        return (
            "Batch-norm statistics were not re-estimated: what stale ones add, where the network "
            "has any, counts as real.",
            speaks,
        )
    outside = [share.name for share in found.shares if not 0 <= share.value <= 1]
    apart = found.share(REAL) is not None
    return (
        STALE_BY_UPDATES,
        speaks,
        *(("Steady learning is not told from jumps: some run has too few epochs.",) * apart),
        *(
            (
                f"Outside 0 to 100 %: {listing(outside)}. Estimates with the noise taken off may "
                "be, and re-estimation may add movement; they are reported as they are.",
            )
            * bool(outside)
        ),
    )


def link_finding(
    network: str, found: Link, re_estimated: bool, rate: float, strong: float
) -> Finding:
    """Does gradient health go with the real change of accuracy?"""
    subject = f"gradient health and the real change of the accuracy of {network}"
    caveat = "Sampling noise in the changes weakens every correlation with them."
    stale = "Statistics were not re-estimated: the change holds what stale ones add."
    return _association_finding(
        (f"association-{network}", network, subject),
        found,
        rate,
        strong,
        (NO_CAUSE, caveat, *(() if re_estimated else (stale,))),
    )


def dose_finding(network: str, found: Link, rate: float, strong: float) -> Finding:
    """Does the staleness of the statistics go with the movement that re-estimation removes?"""
    subject = (
        "the staleness of the running statistics and the movement that re-estimation removes "
        f"from the accuracy of {network}"
    )
    caveat = (
        "A dose-response by epoch is an association; that the movement goes away when the "
        "statistics are re-estimated is the intervention."
    )
    return _association_finding(
        (f"dose-{network}", network, subject), found, rate, strong, (caveat,)
    )


def _association_finding(
    names: tuple[str, str, str], found: Link, rate: float, strong: float, caveats: tuple[str, ...]
) -> Finding:
    key, network, subject = names
    verdict = link_verdict(found, rate, strong)
    return Finding(
        key=slug(key),
        network=network,
        hypothesis=f"{_capital(subject)} go together, beyond the steady course of training.",
        contradicted_by=f"Intervals of all correlations that exclude {strong} and -{strong}.",
        verdict=verdict,
        estimates=(_link_estimate(found),),
        threshold=(
            f"supported where the permutation test of the strongest gives p < "
            f"{number(rate)}; not asked where no permutation could"
        ),
        meaning=_link_meaning(subject, found, verdict, rate),
        next_step=(
            "Record at least 4 seeds: they can be swapped, which is an exact test; more epochs "
            "and seeds narrow the intervals."
            if verdict is Verdict.INCONCLUSIVE
            else "Change one of the two by an intervention, and see whether the other follows."
        ),
        caveats=caveats,
    )


def _link_estimate(found: Link) -> Estimate:
    association = found.association
    if association is None:
        return Estimate("strongest rank correlation", None, method=f"none from {found.missing}")
    quantity, lag = found.strongest
    low, high = association.interval(association.strongest)
    return Estimate(
        f"Spearman correlation with {quantity}, {LAGS[lag]}",
        association.correlations[association.strongest],
        low,
        high,
        method=(
            f"permutation ({association.null}) with maximum statistic over "
            f"{len(found.candidates)} correlations {p_value(association.p_value)}, smallest "
            f"possible {number(association.smallest_p)}; "
            f"{plural(association.observations, 'change')} in {plural(found.runs, 'seed')}"
        ),
    )


def _link_meaning(subject: str, found: Link, verdict: Verdict, rate: float) -> str:
    association = found.association
    if association is None:
        return f"Whether {subject} go together cannot be told from {found.missing}."
    if association.smallest_p >= rate:
        return (
            f"Whether {subject} go together cannot be told from {plural(found.runs, 'seed')} of "
            f"{found.changes} changes: the smallest p-value that they allow is "
            f"{number(association.smallest_p)}."
        )
    words = {
        Verdict.SUPPORTED: f"{_capital(subject)} go together, an association",
        Verdict.CONTRADICTED: f"{_capital(subject)} do not go together strongly",
        Verdict.INCONCLUSIVE: f"Whether {subject} go together cannot be told",
    }
    quantity, lag = found.strongest
    rho = association.correlations[association.strongest]
    return (
        f"{words[verdict]}: the strongest correlation, with {quantity} in the {LAGS[lag]}, is "
        f"rho = {rho:+.2f} {between(*association.interval(association.strongest))}, "
        f"{p_value(association.p_value)} among {len(found.candidates)} looked at."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
