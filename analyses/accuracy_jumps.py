"""Which jumps of validation accuracy are real, and do the gradients move with them?

What would count against jumps: no fall beyond chance, and no room left for a large one. What would
count against a link with the gradients: correlations whose intervals exclude strong ones.
"""

import numpy as np
import pandas as pd

from analyses.accuracy_changes import LAGS, RATE, Jumps, jumps
from analyses.frames import by_network, copies_caveat, runs_with
from analyses.jump_figures import jump_figures
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.statistics import spearman_interval
from analyses.wording import between, number, p_value, percent, plural, points, slug
from gradflow.runs.reader import Experiment

LARGE_FALL = 0.05
STRONG = 0.5
MIN_EPOCHS = 8
NO_CAUSE = (
    "An association: gradients and accuracy both follow training, and only an intervention can "
    "tell whether one moves the other."
)
SOURCES = (
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
    "Benjamini & Hochberg 1995, Controlling the false discovery rate",
    "Westfall & Young 1993, Resampling-based multiple testing (maximum statistic)",
)


def run(
    experiment: Experiment,
    rate: float = RATE,
    large_fall: float = LARGE_FALL,
    strong: float = STRONG,
) -> AnalysisResult:
    """Test each change of validation accuracy, then its association with the gradients.

    `rate` bounds false discoveries; `large_fall` is the fall of accuracy and `strong` the
    correlation that must be excluded before a hypothesis counts as contradicted.

    Raises `NotApplicableError` where no run has predictions of two epochs.
    """
    networks = by_network(runs_with(experiment, "predictions", "predictions by image"))
    found = [jumps(name, runs, rate) for name, runs in networks.items()]
    found = [one for one in found if len(one.changes)]
    if not found:
        raise NotApplicableError(
            "predictions of one epoch only: a change of accuracy needs two epochs at least"
        )
    findings = [
        _jump_finding(one, rate, large_fall, copies_caveat(networks[one.network])) for one in found
    ]
    findings += [_link_finding(one, rate, strong) for one in found]
    return AnalysisResult(
        summary=" ".join(finding.meaning for finding in findings[: len(found)]),
        findings=tuple(findings),
        figures=jump_figures(
            experiment.networks,
            {one.network: (one.curves, one.changes) for one in found},
            _correlations(found),
        ),
        tables=(
            Table("changes", "Changes of validation accuracy called real", _real_changes(found)),
            Table("associations", "Rank correlations with the change", _correlations(found)),
        ),
        method=(
            "Consecutive epochs are compared on the same validation images by McNemar's exact "
            f"test; Benjamini & Hochberg's procedure keeps false discoveries at {percent(rate)} "
            "per network. Spearman's correlation of the change with each gradient quantity of the "
            "same and the previous epoch, averaged over seeds; the largest absolute one is "
            "compared with its distribution when the changes are rotated within each seed (short "
            "single runs: permuted in blocks too), the maximum over quantities and lags each time."
        ),
        sources=SOURCES,
    )


def _jump_finding(one: Jumps, rate: float, large: float, caveats: tuple[str, ...]) -> Finding:
    verdict = _jump_verdict(one.changes, large)
    return Finding(
        key=slug(f"jumps-{one.network}"),
        network=one.network,
        hypothesis=f"The validation accuracy of {one.network} jumps beyond sampling noise.",
        contradicted_by=(
            f"No real fall, and all changes' intervals exclude a fall of {percent(large)}."
        ),
        verdict=verdict,
        estimates=(_lowest_estimate(one),),
        threshold=(
            "supported where at least one fall is real: McNemar's exact test, adjusted after "
            f"Benjamini & Hochberg within {percent(rate)}"
        ),
        meaning=_jump_meaning(one, verdict),
        next_step=(
            "See how much of the movement re-estimated batch-normalization statistics take away."
            if verdict is Verdict.SUPPORTED
            else "Hold out more validation images: the intervals shrink with their square root."
        ),
        caveats=(
            "A real rise may be learning; only a fall is what a steady learner does not do.",
            f"A test on {one.images} images misses small changes.",
            *caveats,
        ),
    )


def _jump_verdict(changes: pd.DataFrame, large: float) -> Verdict:
    if (changes["real"] & (changes["change"] < 0)).any():
        return Verdict.SUPPORTED
    # That no fall is real says little by itself: a large one must be excluded at every epoch.
    return Verdict.CONTRADICTED if (changes["low"] > -large).all() else Verdict.INCONCLUSIVE


def _lowest_estimate(one: Jumps) -> Estimate:
    lowest = one.changes.loc[one.changes["change"].idxmin()]
    value, low, high = (float(100 * lowest[name]) for name in ("change", "low", "high"))
    return Estimate(
        f"lowest change, into epoch {lowest['epoch']}",
        value,
        low,
        high,
        "percentage points",
        method=(
            f"normal interval of a paired difference on {one.images} images, picked among "
            f"{plural(len(one.changes), 'change')}; McNemar {p_value(lowest['p_value'])}"
        ),
    )


def _jump_meaning(one: Jumps, verdict: Verdict) -> str:
    name = f"the validation accuracy of {one.network}"
    words = {
        Verdict.SUPPORTED: f"T{name[1:]} jumps beyond sampling noise",
        Verdict.CONTRADICTED: f"T{name[1:]} does not fall back between epochs",
        Verdict.INCONCLUSIVE: f"Whether {name} jumps beyond sampling noise cannot be told",
    }
    real = one.changes.loc[one.changes["real"], "change"]
    lowest = one.changes.loc[one.changes["change"].idxmin()]
    return (
        f"{words[verdict]}: among {plural(len(one.changes), 'change')} between epochs there are "
        f"{plural(int((real < 0).sum()), 'real fall')} and "
        f"{plural(int((real > 0).sum()), 'real rise')}; the lowest change is "
        f"{points(lowest['change'])} {between(lowest['low'], lowest['high'], points)}."
    )


def _link_finding(one: Jumps, rate: float, strong: float) -> Finding:
    verdict = _link_verdict(one, rate, strong)
    meaning, estimate = _link(one, verdict)
    return Finding(
        key=slug(f"association-{one.network}"),
        network=one.network,
        hypothesis=f"Gradient health goes with the jumps of {one.network}.",
        contradicted_by=f"Intervals of all correlations that exclude {strong} and -{strong}.",
        verdict=verdict,
        estimates=(estimate,),
        threshold=(
            f"supported where the permutation test of the strongest gives p < {number(rate)}; "
            f"asked from {MIN_EPOCHS} epochs on"
        ),
        meaning=meaning,
        next_step=_settled_by(verdict, strong),
        caveats=(
            NO_CAUSE,
            "Sampling noise in the changes weakens every correlation with them.",
        ),
    )


def _link(one: Jumps, verdict: Verdict) -> tuple[str, Estimate]:
    """The meaning of the strongest association, and its estimate."""
    name = f"gradient health and the jumps of {one.network}"
    if one.association is None or one.epochs < MIN_EPOCHS:
        reason = (
            f"{plural(one.epochs, 'epoch')} in all"
            if one.epochs < MIN_EPOCHS
            else "what was recorded: no gradient quantity that varies, or no accuracy that does"
        )
        estimate = Estimate("strongest rank correlation", None, method=f"none from {reason}")
        return f"Whether {name} go together cannot be told from {reason}.", estimate
    quantity, lag = one.candidates[one.association.strongest]
    rho = one.association.correlations[one.association.strongest]
    low, high = spearman_interval(rho, one.association.observations)
    p, count = p_value(one.association.p_value), one.association.observations
    words = {
        Verdict.SUPPORTED: f"G{name[1:]} go together",
        Verdict.CONTRADICTED: f"G{name[1:]} do not go together",
        Verdict.INCONCLUSIVE: f"Whether {name} go together cannot be told",
    }
    meaning = (
        f"{words[verdict]}: the strongest association, with {quantity} in the {LAGS[lag]}, is "
        f"rho = {rho:+.2f} {between(low, high)}, {p} among {len(one.candidates)} looked at."
    )
    return meaning, Estimate(
        f"Spearman correlation of the change with {quantity}, {LAGS[lag]}",
        rho,
        low,
        high,
        method=(
            "Fisher interval, not adjusted for the choice; permutation with maximum statistic "
            f"{p}, {plural(count, 'change')}"
        ),
    )


def _link_verdict(one: Jumps, rate: float, strong: float) -> Verdict:
    if one.association is None or one.epochs < MIN_EPOCHS:
        return Verdict.INCONCLUSIVE
    if one.association.p_value < rate:
        return Verdict.SUPPORTED
    intervals = [
        spearman_interval(rho, one.association.observations) for rho in one.association.correlations
    ]
    excluded = all(-strong < low and high < strong for low, high in intervals)
    return Verdict.CONTRADICTED if excluded else Verdict.INCONCLUSIVE


def _settled_by(verdict: Verdict, strong: float) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        # Fisher's half-width 1.96 sqrt(1.06 / (n - 3)) falls below atanh(strong) from this n on.
        enough = int(np.ceil(3 + 1.06 * (1.96 / np.arctanh(strong)) ** 2))
        return (
            f"Record at least {enough} changes, over more epochs or seeds: only then would the "
            f"interval of a correlation of 0 exclude {strong}."
        )
    return "Change the gradients by an intervention, such as another initialization or shortcuts."


def _real_changes(found: list[Jumps]) -> pd.DataFrame:
    parts = [one.changes[one.changes["real"]].assign(network=one.network) for one in found]
    names = {
        "network": "network",
        "seed": "seed",
        "epoch": "into epoch",
        "change": "change",
        "low": "95 % low",
        "high": "95 % high",
        "gained": "images gained",
        "lost": "images lost",
        "adjusted": "adjusted p",
    }
    return pd.concat(parts, ignore_index=True)[list(names)].rename(columns=names)


def _correlations(found: list[Jumps]) -> pd.DataFrame:
    rows = [
        {"network": one.network, "quantity": quantity, "epoch": LAGS[lag], "Spearman rho": rho}
        for one in found
        if one.association is not None
        for (quantity, lag), rho in zip(one.candidates, one.association.correlations, strict=True)
    ]
    return pd.DataFrame(rows, columns=["network", "quantity", "epoch", "Spearman rho"])


ANALYSIS = Analysis(
    key="accuracy_jumps",
    title="Jumps of accuracy",
    question="Which jumps of validation accuracy are real, and do the gradients move with them?",
    run=run,
)
