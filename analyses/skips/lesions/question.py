"""What does deleting blocks of a trained network cost, with and without skips?

This is an intervention: a block's branch is left out and its input passed on; no weight changes.
That residual networks lose less is contradicted by a cost that is no lower than that of the plain
network.
"""

import pandas as pd

from analyses.reading.extremes import extreme_rows
from analyses.reading.pairs import residual_pairs
from analyses.reading.predictions import duplicates_caveat
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.skips.lesions.figures import lesion_figures
from analyses.skips.lesions.measure import (
    FALSE_DISCOVERY_RATE,
    TABLE,
    Lesions,
    accuracy_by_number,
    block_costs,
    cost_difference,
    lesions_of,
    relative_cost,
)
from analyses.statistics.estimates import as_percent, estimate_of, share_of
from analyses.statistics.means import MIN_SEEDS
from analyses.statistics.verdicts import verdict_above, verdict_below
from analyses.wording.numbers import number, share_bound
from analyses.wording.phrases import plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said
from gradflow.runs.reading.run import Experiment

HALF = 0.5
HYPOTHESIS = "Deleting one block[ of {}] costs less than {bound} of the accuracy above chance."
LEAD = "on average it costs {}"
PLAIN_BLOCKS = (
    "A plain block has no skip: its input is passed on instead, subsampled and padded with "
    "channels of zeros where the shape changes."
)
ACCURACY_LIMIT = (
    "A network cannot lose more than its accuracy above chance: compare the shares of accuracy "
    "above chance as well as the points."
)
INTACT_STATISTICS = (
    "The batch-norm statistics stay those of the intact network, which is part of the cost."
)
NOT_COMPARED = (
    "No plain and residual run with the same seed both recorded deleted blocks, so the two "
    "networks are not compared."
)
SOURCES = (
    "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow networks "
    "(deleting one layer, deleting many)",
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
    "Benjamini & Hochberg 1995, Controlling the false discovery rate",
)


def run(
    experiment: Experiment, rate: float = FALSE_DISCOVERY_RATE, half: float = HALF
) -> AnalysisResult:
    """Compute the accuracy with each block deleted, and with several at once.

    `rate` is the false discovery rate among the blocks of a run. A network survives the deletion of
    a block if it loses less than the share `half` of its accuracy above chance.

    Raises `NotApplicableError` if no run recorded both the intact network and deleted blocks.
    """
    recorded = by_network(runs_with(experiment, TABLE, "deleted blocks"))
    seeds = {
        name: {run.seed: found for run in runs if (found := lesions_of(run)) is not None}
        for name, runs in recorded.items()
    }
    networks = {name: list(found.values()) for name, found in seeds.items() if found}
    if not networks:
        raise NotApplicableError(
            "no run recorded both the intact network and one with a single block deleted "
            "(table lesions)"
        )
    costs = {name: block_costs(found, rate) for name, found in networks.items()}
    caveats = {name: duplicates_caveat(runs) for name, runs in recorded.items()}
    findings = _pair_findings(experiment, seeds)
    alone = () if findings else (NOT_COMPARED,)
    survivors = sentence([_told(name, found, half) for name, found in networks.items()], LEAD)
    summary = [*(finding.meaning for finding in findings), survivors]
    findings += [
        _finding(name, found, costs[name], half, caveats[name] + alone)
        for name, found in networks.items()
    ]
    return AnalysisResult(
        summary=" ".join(summary),
        findings=tuple(findings),
        figures=lesion_figures(experiment.networks, networks, costs),
        tables=(
            extreme_rows(
                "blocks",
                "Accuracy lost by deleting one block",
                _block_table(costs),
                "accuracy lost",
            ),
            Table("numbers", "Accuracy by the number of blocks deleted", _numbers(networks)),
        ),
        method=(
            "At a checkpoint each block's branch is left out in turn, then k random blocks at "
            "once, and the same validation images are predicted again. Each deletion is compared "
            "with the intact network by McNemar's exact test, adjusted after Benjamini & Hochberg "
            f"over the blocks of a run (rate {number(rate)}). Intervals: over images, or Student's "
            "over three and more seeds."
        ),
        sources=SOURCES,
        together={"survives": survivors},
    )


def _pair_findings(
    experiment: Experiment, seeds: dict[str, dict[int | None, Lesions]]
) -> list[Finding]:
    findings = []
    for pair in residual_pairs(experiment):
        plain, residual = seeds.get(pair.plain, {}), seeds.get(pair.residual, {})
        common = [seed for seed in plain if seed in residual]
        if common:
            both = [(plain[seed], residual[seed]) for seed in common]
            findings.append(_pair_finding(pair.plain, pair.residual, both))
    return findings


def _pair_finding(plain: str, residual: str, both: list[tuple[Lesions, Lesions]]) -> Finding:
    names = {"plain": plain, "residual": residual}
    gap = estimate_of(
        Said("cost in {plain} less cost in {residual}, mean over blocks", **names),
        cost_difference(both),
        "percentage points",
        as_percent,
    )
    verdict = verdict_above(gap.low, gap.high, 0.0)
    words = {
        Verdict.SUPPORTED: Said(
            "Deleting one block of {residual} costs less than of {plain}", **names
        ),
        Verdict.CONTRADICTED: Said(
            "Deleting one block of {residual} costs more than of {plain}", **names
        ),
        Verdict.INCONCLUSIVE: Said(
            "Whether deleting one block of {residual} costs less than of {plain} cannot be told",
            **names,
        ),
    }[verdict]
    sides = {plain: [one for one, _ in both], residual: [other for _, other in both]}
    costs = {
        name: number(100 * sum(one.cost.mean() for one in side) / len(side))
        for name, side in sides.items()
    }
    return Finding(
        key=slug(f"lesions-{plain}-{residual}"),
        network=None,
        hypothesis=Said(
            "Deleting one block of {residual} costs less accuracy than of {plain}.", **names
        ),
        contradicted_by="A difference, plain less residual, whose interval lies below 0.",
        verdict=verdict,
        estimates=(gap, *(_share(name, side) for name, side in sides.items())),
        threshold="supported if the 95 % interval of the difference lies above 0",
        meaning=Said(
            "{words}: averaged over blocks it costs {less} against {more} percentage points of "
            "accuracy, a difference of {difference}.",
            words=words,
            less=costs[residual],
            more=costs[plain],
            difference=gap.words,
        ),
        next_step=(
            "See which blocks cost most, and whether the gradients that reach them differ too."
            if verdict is not Verdict.INCONCLUSIVE
            else "Hold out more validation images, or train three seeds and more."
        ),
        caveats=(ACCURACY_LIMIT, PLAIN_BLOCKS, INTACT_STATISTICS),
        evidence=("cost-by-block", "blocks"),
    )


def _share(of: str, seeds: list[Lesions]) -> Estimate:
    name = f"share of accuracy above chance lost, {of}"
    return share_of(name, relative_cost(seeds))


def _finding(
    network: str,
    seeds: list[Lesions],
    costs: pd.DataFrame,
    half: float,
    caveats: tuple[str, ...],
) -> Finding:
    return Finding(
        key=slug(f"survives-{network}"),
        network=network,
        hypothesis=with_network(HYPOTHESIS, network, bound=share_bound(half)),
        contradicted_by=f"A mean cost whose interval lies above {share_bound(half)}.",
        verdict=_verdict(seeds, half),
        estimates=(
            _share("mean over blocks", seeds),
            _costliest(costs, len(seeds)),
            Estimate(
                f"deletions that change accuracy beyond chance, of {len(costs)}",
                float(costs["real"].sum()),
                method="count, no interval: McNemar's test, adjusted, in every seed",
            ),
        ),
        threshold=(
            f"supported if the 95 % interval of the mean share lies below {share_bound(half)}"
        ),
        meaning=sentence([_told(network, seeds, half)], LEAD),
        next_step="Delete several blocks at once, and see from how many on accuracy breaks down.",
        caveats=(INTACT_STATISTICS, PLAIN_BLOCKS, *caveats),
        statement=without_network(HYPOTHESIS, bound=share_bound(half)),
        evidence=("cost-by-block", "accuracy-by-number", "blocks", "numbers"),
    )


def _verdict(seeds: list[Lesions], half: float) -> Verdict:
    share = relative_cost(seeds)
    return verdict_below(share.low, share.high, half)


def _told(network: str, seeds: list[Lesions], half: float) -> NetworkStatement:
    costs_it, much = (
        "deleting one block costs",
        f"than {share_bound(half)} of the accuracy above chance",
    )
    clause = {
        Verdict.SUPPORTED: f"{costs_it} less {much}",
        Verdict.CONTRADICTED: f"{costs_it} more {much}",
        Verdict.INCONCLUSIVE: f"it cannot be told whether {costs_it} less {much}",
    }[_verdict(seeds, half)]
    share = _share("", seeds)
    if share.value is None:
        return NetworkStatement(network, clause, detail=share.method)
    return NetworkStatement(network, clause, share.words)


def _costliest(costs: pd.DataFrame, seeds: int) -> Estimate:
    worst = costs.loc[costs["cost"].idxmax()]
    value, low, high = (100 * float(worst[name]) for name in ("cost", "low", "high"))
    return Estimate(
        f"accuracy lost without {worst['block']}, the costliest block",
        value,
        low,
        high,
        "percentage points",
        method=(
            f"picked among {plural(len(costs), 'block')}; interval over "
            f"{'seeds' if seeds >= MIN_SEEDS else 'images'}, not adjusted for the choice"
        ),
    )


def _block_table(costs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    names = {
        "network": "network",
        "block": "block",
        "cost": "accuracy lost",
        "low": "95 % low",
        "high": "95 % high",
        "gained": "images gained",
        "lost": "images lost",
        "adjusted": "adjusted p",
    }
    frame = pd.concat([cost.assign(network=name) for name, cost in costs.items()])
    return frame[list(names)].rename(columns=names).reset_index(drop=True)


def _numbers(networks: dict[str, list[Lesions]]) -> pd.DataFrame:
    parts = []
    for name, seeds in networks.items():
        grouped = accuracy_by_number(seeds).groupby("deleted")["accuracy"]
        frame = grouped.agg(["size", "mean", "min", "max"]).reset_index()
        parts.append(frame.assign(network=name))
    names = {"deleted": "blocks deleted", "size": "sets", "mean": "mean accuracy"}
    together = pd.concat(parts, ignore_index=True)[["network", *names, "min", "max"]]
    return together.rename(columns=names)


ANALYSIS = Analysis(
    key="lesions",
    title="Deleted blocks",
    question="What does deleting blocks of a trained network cost?",
    run=run,
    background=(
        "Leaving out the branch of one block of a trained network, with all weights kept, "
        "shows how much accuracy rests on that block."
    ),
    order=170,
)
