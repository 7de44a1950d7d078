"""Which jumps of validation accuracy are beyond sampling noise?

Contradicted if no fall is beyond chance and a large fall is excluded.
"""

import pandas as pd

from analyses.accuracy.jumps.figures import jump_figure
from analyses.accuracy.jumps.measure import FALSE_DISCOVERY_RATE, NetworkChanges, changes_of_network
from analyses.reading.predictions import duplicates_caveat
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.wording.numbers import p_value, share_bound
from analyses.wording.phrases import plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Numeral, Said, message
from gradflow.runs.reading.run import Experiment

LARGE_FALL = 0.05
HYPOTHESIS = "The validation accuracy[ of {}] jumps beyond sampling noise."
SOURCES = (
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
    "Benjamini & Hochberg 1995, Controlling the false discovery rate",
)


def run(
    experiment: Experiment,
    false_discovery_rate: float = FALSE_DISCOVERY_RATE,
    large_fall: float = LARGE_FALL,
) -> AnalysisResult:
    """Test each change of validation accuracy against sampling noise.

    `false_discovery_rate` is that of the changes called real; `large_fall` is the fall of accuracy
    that must be excluded before the hypothesis counts as contradicted.

    Raises `NotApplicableError` if no run has predictions of two epochs.
    """
    networks = by_network(runs_with(experiment, "predictions", "predictions by image"))
    found = [
        changes_of_network(name, runs, false_discovery_rate) for name, runs in networks.items()
    ]
    found = [one for one in found if len(one.changes)]
    if not found:
        raise NotApplicableError(
            "predictions were recorded at one epoch only, and a change of accuracy needs two epochs"
        )
    findings = tuple(
        _jump_finding(
            one, false_discovery_rate, large_fall, duplicates_caveat(networks[one.network])
        )
        for one in found
    )
    together = sentence([_statement(one, large_fall) for one in found])
    return AnalysisResult(
        summary=together,
        findings=findings,
        figures=(
            jump_figure(
                experiment.networks, {one.network: (one.curves, one.changes) for one in found}
            ),
        ),
        tables=(
            Table("changes", "Changes of validation accuracy called real", _real_changes(found)),
        ),
        method=(
            "Consecutive epochs are compared on the same validation images by McNemar's exact "
            "test; Benjamini & Hochberg's procedure keeps false discoveries at "
            f"{share_bound(false_discovery_rate)} per network."
        ),
        sources=SOURCES,
        together={"jumps": together},
    )


def _jump_finding(
    one: NetworkChanges, false_discovery_rate: float, large: float, caveats: tuple[str, ...]
) -> Finding:
    verdict = _jump_verdict(one.changes, large)
    return Finding(
        key=slug(f"jumps-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESIS, one.network),
        contradicted_by=(
            "No real fall, and intervals of all changes that exclude a fall of "
            f"{share_bound(large)}."
        ),
        verdict=verdict,
        estimates=(_lowest_estimate(one),),
        threshold=(
            "supported if at least one fall is real: McNemar's exact test, adjusted after "
            f"Benjamini & Hochberg within {share_bound(false_discovery_rate)}"
        ),
        meaning=sentence([_statement(one, large)]),
        next_step=message(
            "Look at the explanation of the jumps: noise, stale statistics or real change."
            if verdict is Verdict.SUPPORTED
            else "Hold out more validation images: the intervals shrink with their square root."
        ),
        caveats=(
            "A real rise may be learning; only a fall cannot come from steady learning.",
            f"A test on {one.images} images misses small changes.",
            *caveats,
        ),
        statement=without_network(HYPOTHESIS),
        evidence=("real-jumps", "changes"),
    )


def _jump_verdict(changes: pd.DataFrame, large: float) -> Verdict:
    if (changes["real"] & (changes["change"] < 0)).any():
        return Verdict.SUPPORTED
    # The absence of a real fall says little: a large one must be excluded at every epoch.
    return Verdict.CONTRADICTED if (changes["low"] > -large).all() else Verdict.INCONCLUSIVE


def _lowest_estimate(one: NetworkChanges) -> Estimate:
    lowest = one.changes.loc[one.changes["change"].idxmin()]
    value, low, high = (float(100 * lowest[name]) for name in ("change", "low", "high"))
    return Estimate(
        Said("lowest change, into epoch {epoch}", epoch=Numeral(f"{lowest['epoch']}")),
        value,
        low,
        high,
        "percentage points",
        method=(
            f"normal interval of a paired difference on {one.images} images, the lowest of "
            f"{plural(len(one.changes), 'change')}; McNemar {p_value(lowest['p_value'])}"
        ),
    )


def _statement(one: NetworkChanges, large: float) -> NetworkStatement:
    clause = {
        Verdict.SUPPORTED: message("validation accuracy jumps beyond sampling noise"),
        Verdict.CONTRADICTED: message("validation accuracy does not fall back between epochs"),
        Verdict.INCONCLUSIVE: message(
            "it cannot be told whether validation accuracy jumps beyond sampling noise"
        ),
    }[_jump_verdict(one.changes, large)]
    real = one.changes.loc[one.changes["real"], "change"]
    falls, rises = plural(int((real < 0).sum()), "fall"), plural(int((real > 0).sum()), "rise")
    return NetworkStatement(
        one.network,
        clause,
        detail=Said(
            "{falls} and {rises} among {changes} between epochs are beyond chance, and the lowest "
            "change is {change}",
            falls=falls,
            rises=rises,
            changes=plural(len(one.changes), "change"),
            change=_lowest_estimate(one).words,
        ),
    )


def _real_changes(found: list[NetworkChanges]) -> pd.DataFrame:
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


ANALYSIS = Analysis(
    key="accuracy_jumps",
    title="Jumps of accuracy",
    question="Which jumps of validation accuracy are beyond sampling noise?",
    run=run,
    background=(
        "An accuracy counted on a limited number of images has sampling noise: only a "
        "change larger than that noise shows that the network itself changed."
    ),
    order=40,
)
