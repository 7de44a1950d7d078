"""Findings of the matched comparison: which network is ahead over all epochs, and at the end."""

from analyses.accuracy.difference.figures import mean_difference_words
from analyses.accuracy.difference.measure import (
    MEAN_ROW,
    AccuracyDifference,
    DifferenceCurve,
    PairComparison,
    accuracy_difference,
)
from analyses.reading.balance import balanced_words
from analyses.reading.options import configuration_differences
from analyses.reading.predictions import duplicates_caveat
from analyses.result import Estimate, Finding, Verdict
from analyses.statistics.means import MIN_SEEDS
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import p_value
from analyses.wording.phrases import listing, plural, slug
from analyses.wording.translatable import Said, message

BEST_EPOCH_CAVEAT = (
    "The best of several epochs is chosen on the images on which it is measured, so its accuracy "
    "is optimistic, the more so the more the curve jumps."
)


def finding_over_epochs(one: PairComparison) -> Finding:
    """Is the residual network ahead, averaged over epochs?"""
    plain, residual = one.pair.plain, one.pair.residual
    means = one.curve.means
    low, high = means.pointwise_interval(MEAN_ROW)
    verdict = verdict_above(low, high, 0.0)
    words = {
        Verdict.SUPPORTED: f"{residual} is ahead of {plain}",
        Verdict.CONTRADICTED: f"{residual} is behind {plain}",
        Verdict.INCONCLUSIVE: f"it cannot be told whether {residual} is ahead of {plain}",
    }[verdict]
    estimates = [_of_curve(_less(one, message("mean over epochs")), one.curve)]
    said = ""
    if one.re_estimated_curve is not None:
        estimates.append(
            _of_curve("the same, re-estimated batch-norm statistics", one.re_estimated_curve)
        )
        again = mean_difference_words(one.re_estimated_curve)
        said = f"; with re-estimated batch-norm statistics it is {again}"
    return Finding(
        key=slug(f"ahead-{residual}"),
        network=None,
        hypothesis=Said(
            "Averaged over epochs, {residual} validates more accurately than {plain}.",
            residual=residual,
            plain=plain,
        ),
        contradicted_by="An interval of the mean difference over epochs that lies below 0.",
        verdict=verdict,
        estimates=tuple(estimates),
        threshold="supported if the 95 % interval of the mean difference lies above 0",
        meaning=(
            f"In validation accuracy averaged over {plural(len(one.curve.epochs), 'epoch')}, "
            f"{words}: the difference is {mean_difference_words(one.curve)} "
            f"over {_seeds(means.seeds)}{said}."
        ),
        next_step=_next_step(means.seeds, verdict),
        caveats=_caveats(one),
        evidence=evidence(residual),
    )


def finding_at_last_epoch(one: PairComparison) -> Finding:
    """Does the residual network end above the plain one?"""
    plain, residual = one.pair.plain, one.pair.residual
    last, best = accuracy_difference(one.scores), accuracy_difference(one.scores, best=True)
    verdict = verdict_above(last.low, last.high, 0.0)
    words = {
        Verdict.SUPPORTED: f"{residual} is ahead of {plain}",
        Verdict.CONTRADICTED: f"{residual} is behind {plain}",
        Verdict.INCONCLUSIVE: f"it cannot be told whether {residual} is ahead of {plain}",
    }[verdict]
    test = "" if last.p_value is None else f", McNemar's exact {p_value(last.p_value)}"
    estimates = [
        _of_difference(_less(one, message("last epoch")), last),
        _of_difference(_less(one, message("each at its best epoch")), best),
    ]
    if one.re_estimated_scores:
        name = _less(one, message("last epoch, re-estimated batch-norm statistics"))
        estimates.insert(1, _of_difference(name, accuracy_difference(one.re_estimated_scores)))
    return Finding(
        key=slug(f"higher-accuracy-{residual}"),
        network=None,
        hypothesis=Said(
            "{residual} reaches a higher validation accuracy than {plain} at the last epoch.",
            residual=residual,
            plain=plain,
        ),
        contradicted_by="An interval of the difference that lies below 0.",
        verdict=verdict,
        estimates=tuple(estimates),
        threshold="supported if the 95 % interval of the difference lies above 0",
        meaning=(
            f"In validation accuracy at the last epoch, {words}: the difference is "
            f"{estimates[0].words} over {_seeds(last.seeds)}{test}.{_on_balance(one)}"
        ),
        next_step=_next_step(last.seeds, verdict),
        caveats=(BEST_EPOCH_CAVEAT, *_caveats(one)),
        evidence=evidence(residual),
    )


def _less(one: PairComparison, when: str) -> str:
    """The name of a difference; the reports read the two networks from it."""
    pair = one.pair
    return Said(
        "{residual} less {plain}, {when}",
        residual=pair.residual,
        plain=pair.plain,
        when=when,
    )


def evidence(residual: str) -> tuple[str, ...]:
    """Keys of the figures and tables that show how far `residual` is ahead."""
    return tuple(slug(f"{name}-{residual}") for name in ("by-epoch", "by-seed"))


def _on_balance(one: PairComparison) -> str:
    """A sentence on the balanced accuracies at the last epoch, if the classes differ in size."""
    plain, residual = zip(*one.runs, strict=True)
    first, second = balanced_words(residual), balanced_words(plain)
    if not first or not second:
        return ""
    return (
        f" The classes differ in size: in balanced accuracy, {one.pair.residual} has {first} and "
        f"{one.pair.plain} {second}."
    )


def _seeds(seeds: int) -> str:
    alone = ", resampling images only" if seeds < MIN_SEEDS else ""
    return plural(seeds, "seed") + alone


def _of_curve(name: str, curve: DifferenceCurve) -> Estimate:
    low, high = curve.means.pointwise_interval(MEAN_ROW)
    return _estimate(name, float(curve.means.values[MEAN_ROW]), low, high, curve.method)


def _of_difference(name: str, gap: AccuracyDifference) -> Estimate:
    test = "" if gap.p_value is None else f"; McNemar's exact test {p_value(gap.p_value)}"
    return _estimate(name, gap.value, gap.low, gap.high, gap.method + test)


def _estimate(
    name: str, value: float, low: float | None, high: float | None, method: str
) -> Estimate:
    ends = [None if end is None else 100 * end for end in (low, high)]
    return Estimate(name, 100 * value, ends[0], ends[1], "percentage points", method=method)


def _next_step(seeds: int, verdict: Verdict) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        return "Train more seeds or hold out more images: the interval includes 0."
    if seeds < MIN_SEEDS:
        return f"Repeat with at least {MIN_SEEDS} seeds to see whether the difference holds."
    return "Look at the gradients and the batch statistics for the cause of the difference."


def _caveats(one: PairComparison) -> tuple[str, ...]:
    seeds = len(one.scores)
    caveats = [*duplicates_caveat([run for both in one.runs for run in both])]
    if seeds < MIN_SEEDS:
        caveats.append(
            f"{plural(seeds, 'seed')} cannot show how much other initial weights, another order "
            "of batches or another split would change the difference."
        )
    else:
        caveats.append(
            "The interval is about other seeds, splits and images of this data set, with equally "
            "many epochs and the same options; not about other data or longer training."
        )
    if one.shorter:
        reached = [f"{both.seed} ({plural(len(both.epochs), 'epoch')})" for both in one.shorter]
        caveats.append(
            f"Left out, since their runs have fewer common epochs: seed {listing(reached)}."
        )
    if not all(both.same_images for both in one.scores):
        caveats.append(
            "The two networks of a seed were not validated on exactly the same images; only the "
            "common images are compared."
        )
    differing = sorted(
        {
            option
            for plain, residual in one.runs
            for option in configuration_differences(plain, residual)["option"]
            if option != "network"
        }
    )
    if differing:
        caveats.append(
            f"The two networks of a seed also differ in {listing(differing)}, so the difference "
            "need not come from the skips."
        )
    return tuple(caveats)
