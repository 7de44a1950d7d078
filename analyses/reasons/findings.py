"""The findings on the skips and on each possible reason for a difference in accuracy."""

from dataclasses import replace

from analyses.reasons.evidence import (
    Evidence,
    EvidenceLevel,
    NetworkComparison,
    Thresholds,
    lies_above,
)
from analyses.reasons.possible_reasons import PATH_LENGTH, PROFILE, STALENESS
from analyses.result import Estimate, Finding, Length, Verdict
from analyses.statistics.estimates import as_percent, estimate_of
from analyses.statistics.means import MIN_SEEDS, Mean
from analyses.wording.numbers import number, p_value, share_bound
from analyses.wording.phrases import listing, plural, slug
from analyses.wording.translatable import Numeral, Said

NO_CAUSE_CAVEAT = "A difference between two networks, or an association over seeds, is not a cause."
FIXED_WEIGHTS_CAVEAT = (
    "Scaling skips or deleting blocks damages a trained network: it shows what that network "
    "depends on, not why training with skips gives this accuracy."
)
FORWARD_ONLY_CAVEAT = (
    "The skip interventions change this too, but at fixed weights gradients cannot affect "
    "accuracy, so they are no evidence here."
)


def pair_findings(one: NetworkComparison, thresholds: Thresholds) -> list[Finding]:
    """One finding on the skips themselves, if accuracy was recorded, then the possible reasons."""
    findings = [_skips_finding(one)] if one.interventions.last_epoch_difference is not None else []
    findings += [_reason_finding(one, each, thresholds) for each in one.evidence]
    if one.missing:
        left_out = f"Not recorded in either network, so not examined: {listing(one.missing)}."
        findings[0] = replace(findings[0], caveats=(*findings[0].caveats, left_out))
    return findings


def trained_difference(one: NetworkComparison) -> Mean:
    """The difference of accuracy between training with and without skips, with its interval."""
    trained = one.interventions.last_epoch_difference
    if trained is None:
        return Mean(None, None, None, "accuracy was not recorded in both networks")
    return Mean(trained.value, trained.low, trained.high, trained.method)


def _seeds(one: NetworkComparison) -> int:
    trained = one.interventions.last_epoch_difference
    return trained.seeds if trained else 0


def skip_sentence(one: NetworkComparison) -> str:
    """The effect of training with skips on accuracy, as a sentence."""
    gap, pair = trained_difference(one), one.pair
    if gap.value is None:
        return Said(
            "The accuracies of {plain} and {residual} cannot be compared.",
            plain=pair.plain,
            residual=pair.residual,
        )
    difference = estimate_of("", gap, "percentage points", as_percent).words
    if _seeds(one) < MIN_SEEDS:
        conclusion = Said(
            "with {seeds} this may be the luck of one training", seeds=plural(_seeds(one), "seed")
        )
    elif lies_above(gap, 0.0):
        conclusion = Said("training with skips makes it better")
    else:
        conclusion = Said("that training with skips makes it better is not shown")
    return Said(
        "The accuracy of {residual} at the last epoch is {difference} above {plain}'s: "
        "{conclusion}.",
        residual=pair.residual,
        difference=difference,
        plain=pair.plain,
        conclusion=conclusion,
    )


def _skips_finding(one: NetworkComparison) -> Finding:
    gap, verdict = trained_difference(one), Verdict.INCONCLUSIVE
    if _seeds(one) >= MIN_SEEDS and gap.low is not None and gap.high is not None:
        if gap.low > 0:
            verdict = Verdict.SUPPORTED
        elif gap.high < 0:
            verdict = Verdict.CONTRADICTED
    found, names = one.interventions, (one.pair.plain, one.pair.residual)
    return Finding(
        key=slug(f"skips-{names[0]}-{names[1]}"),
        network=None,
        hypothesis=Said(
            "Training with skips makes {residual} more accurate than {plain}.",
            residual=names[1],
            plain=names[0],
        ),
        contradicted_by="A difference of accuracy, paired by seed, whose interval lies below 0.",
        verdict=verdict,
        estimates=(
            estimate_of(
                Said(
                    "accuracy of {residual} less {plain}, last epoch",
                    residual=names[1],
                    plain=names[0],
                ),
                gap,
                "percentage points",
                as_percent,
            ),
            *_fixed_weight_estimates(one),
        ),
        threshold=(
            "supported if the 95 % interval over seeds lies above 0; needs at least "
            f"{plural(MIN_SEEDS, 'seed')}"
        ),
        meaning=skip_sentence(one),
        next_step=(
            "Ask how the skips act: see the possible reasons."
            if verdict is Verdict.SUPPORTED
            else Said(
                "Train at least {count} seeds of both networks, or better five.",
                count=Numeral(f"{MIN_SEEDS}"),
            )
        ),
        caveats=(
            "This counts as an intervention because the networks differ only in their skips: runs "
            "of one seed have the same data, order and options.",
            *(
                (FIXED_WEIGHTS_CAVEAT,)
                if found.loss_without_skips or found.deletion_cost_difference
                else ()
            ),
        ),
        evidence=_evidence(one, interventions=True),
    )


def _evidence(one: NetworkComparison, *, interventions: bool) -> tuple[str, ...]:
    names = ("candidates", "effects") if interventions else ("candidates",)
    return tuple(slug(f"{name}-{one.pair.plain}-{one.pair.residual}") for name in names)


def _fixed_weight_estimates(one: NetworkComparison) -> list[Estimate]:
    found, pair = one.interventions, one.pair
    named = (
        (f"accuracy {pair.residual} loses with its skips scaled down", found.loss_without_skips),
        (
            f"cost of deleting a block, {pair.plain} less {pair.residual}",
            found.deletion_cost_difference,
        ),
    )
    return [
        estimate_of(name, mean, "percentage points", as_percent)
        for name, mean in named
        if mean is not None
    ]


def _reason_finding(one: NetworkComparison, each: Evidence, thresholds: Thresholds) -> Finding:
    pair, name = one.pair, each.reason.name
    return Finding(
        key=slug(f"{each.reason.key}-{pair.plain}-{pair.residual}"),
        network=None,
        hypothesis=Said(
            "The {reason} explains part of the difference between {plain} and {residual}.",
            reason=Said(name),
            plain=pair.plain,
            residual=pair.residual,
        ),
        contradicted_by=(
            "An intervention on it that does not change the difference of accuracy, or equal "
            "values in both networks."
        ),
        verdict=each.verdict,
        estimates=_estimates(one, each),
        threshold=_threshold(each, thresholds),
        meaning=_meaning(one, each),
        next_step=_next_step(each),
        caveats=_caveats(one, each),
        evidence=_evidence(one, interventions=each.reason.key in (STALENESS, PATH_LENGTH)),
        # The figure shows all reasons; of one that is open there is nothing more to say.
        length=Length.FULL if each.verdict is Verdict.INCONCLUSIVE else Length.STANDARD,
    )


def _estimates(one: NetworkComparison, each: Evidence) -> tuple[Estimate, ...]:
    reason, found = each.reason, one.interventions
    estimates = [
        estimate_of(f"{reason.name}, {network}", mean, reason.unit, reason.shown, "not recorded")
        for network, mean in ((one.pair.plain, each.plain), (one.pair.residual, each.residual))
    ]
    how = Said("residual over plain" if reason.logarithmic else "residual less plain")
    unit = "" if reason.logarithmic else reason.unit
    missing = "not recorded in both networks"
    estimates.insert(
        0,
        estimate_of(
            Said("{reason}, {how}", reason=Said(reason.name), how=how),
            each.difference,
            unit,
            reason.shown,
            missing,
        ),
    )
    if reason.key == STALENESS and found.difference_removed is not None:
        estimates.insert(
            0,
            estimate_of(
                "difference of accuracy removed by re-estimated statistics",
                found.difference_removed,
                "percentage points",
                as_percent,
            ),
        )
        estimates.append(
            estimate_of(
                "difference of accuracy over all epochs, running statistics",
                found.mean_difference,
                "percentage points",
                as_percent,
            )
        )
    if reason.key == PATH_LENGTH:
        estimates += _fixed_weight_estimates(one)
    if each.runs:
        method = f"over the seeds of each network, {plural(each.runs, 'run')}, no interval"
        said = f"permutation with maximum statistic {p_value(each.p_value)}"
        estimates.append(
            Estimate("Spearman correlation with accuracy", each.rho, method=f"{method}; {said}")
        )
    return tuple(estimates)


def _threshold(each: Evidence, thresholds: Thresholds) -> str:
    margin = each.reason.shown(each.reason.margin)
    same = f"a factor of {number(margin)}" if each.reason.logarithmic else number(margin)
    return (
        "supported only if an intervention changed it and the 95 % interval of the difference of "
        "accuracy that it removed lies above 0; contradicted if that interval ends below "
        f"{share_bound(thresholds.removable_share)} of the lower end of the difference, or the "
        f"networks differ by less than {same}"
    )


def _meaning(one: NetworkComparison, each: Evidence) -> str:
    name, found = each.reason.name, one.interventions
    removed = found.difference_removed
    if each.reason.key == STALENESS and removed and removed.value is not None:
        between_networks = f"the difference between {one.pair.plain} and {one.pair.residual}"
        words = {
            Verdict.SUPPORTED: f"The {name} explains part of {between_networks}",
            Verdict.CONTRADICTED: f"The {name} does not explain {between_networks}",
            Verdict.INCONCLUSIVE: f"Whether the {name} explains {between_networks} cannot be told",
        }[each.verdict]
        difference = _difference_in_words(found.mean_difference)
        return f"{words}: re-estimating them {_removal_in_words(removed)} {difference}."
    values, loss = _values_in_words(one, each), _loss_in_words(found.loss_without_skips)
    if each.level is EvidenceLevel.NO_CAUSE:
        return f"The {name} does not explain the difference: {values}; {loss}."
    if each.level is EvidenceLevel.ALIKE:
        return f"The {name} does not explain the difference, since it is alike in both: {values}."
    reason = {
        EvidenceLevel.NETWORK_RESTS_ON_IT: f"{loss}, which is about the trained network only",
        EvidenceLevel.DIFFERS: "it differs, but no intervention changed it alone",
        EvidenceLevel.ASSOCIATED: (
            "it goes with accuracy over seeds, but no intervention changed it alone"
        ),
        EvidenceLevel.DIFFERS_ASSOCIATED: (
            "it differs and goes with accuracy over seeds, but no intervention changed it alone"
        ),
        EvidenceLevel.UNKNOWN: "it is not certain that the networks differ in it",
    }[each.level]
    return f"Whether the {name} explains the difference cannot be told: {values}; {reason}."


def _difference_in_words(gap: Mean | None) -> str:
    if gap is None or gap.value is None:
        return "the difference"
    return f"{number(100 * gap.value)} percentage points"


def _removal_in_words(removed: Mean) -> str:
    """How much an intervention takes away from the difference, or adds to it."""
    value, low, high = (
        None if end is None else -end for end in (removed.value, removed.high, removed.low)
    )
    if value is not None and value > 0:
        return f"adds {_points(Mean(value, low, high, ''))} to"
    return f"removes {_points(removed)} of"


def _points(mean: Mean) -> str:
    return estimate_of("", mean, "percentage points", as_percent).words


def _loss_in_words(unscaled: Mean | None) -> str:
    if unscaled is None or unscaled.value is None:
        return "its skips were not scaled"
    return f"without its skips the trained network loses {_points(unscaled)} of accuracy"


def _values_in_words(one: NetworkComparison, each: Evidence) -> str:
    said = []
    for network, mean in ((one.pair.plain, each.plain), (one.pair.residual, each.residual)):
        if mean is None or mean.value is None:
            said.append(f"not recorded in {network}")
            continue
        if mean.method == "by construction":
            shown = f"{number(mean.value)} {each.reason.unit} (by construction)"
        else:
            shown = estimate_of("", mean, each.reason.unit, each.reason.shown).words
        said.append(f"{shown} in {network}")
    return " and ".join(said)


def _next_step(each: Evidence) -> str:
    if each.verdict is Verdict.SUPPORTED:
        return "Judge both networks with re-estimated statistics, and ask what explains the rest."
    if each.verdict is Verdict.CONTRADICTED:
        return "Look at the other possible reasons."
    return "Change only this in training, in five seeds, and see whether accuracy changes too."


def _caveats(one: NetworkComparison, each: Evidence) -> tuple[str, ...]:
    caveats = [NO_CAUSE_CAVEAT]
    if each.reason.key == PROFILE and one.interventions.loss_without_skips is not None:
        caveats.append(FORWARD_ONLY_CAVEAT)
    if each.reason.key == PATH_LENGTH:
        caveats.append(FIXED_WEIGHTS_CAVEAT)
    if each.reason.key == STALENESS:
        caveats.append("Re-estimating changes the evaluation, not the training before it.")
    if not each.runs:
        caveats.append("Too few seeds, or values that do not vary, for an association over seeds.")
    if _seeds(one) < MIN_SEEDS:
        caveats.append("Intervals are about other steps, epochs or images, not about other seeds.")
    return tuple(caveats)
