"""The evidence on each possible reason: values in both networks, associations, interventions."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from analyses.reading.pairs import NetworkPair
from analyses.reading.probe_tables import mean_over_epochs
from analyses.reasons.interventions import Interventions, interventions_on, last_accuracy
from analyses.reasons.possible_reasons import (
    PATH_LENGTH,
    POSSIBLE_REASONS,
    STALENESS,
    PossibleReason,
)
from analyses.result import Verdict
from analyses.skips.path_lengths import PATHS
from analyses.statistics import Array
from analyses.statistics.associations_over_seeds import SeedAssociations, seed_associations
from analyses.statistics.differences import difference_interval
from analyses.statistics.means import MIN_SEEDS, Mean, mean_over_steps
from gradflow.runs.reading.run import Experiment, Run


class EvidenceLevel(StrEnum):
    """How far the evidence on a possible reason goes; only an intervention makes a cause."""

    CAUSE = "a cause: an intervention changed both"
    NO_CAUSE = "no cause: an intervention did not change accuracy"
    NETWORK_RESTS_ON_IT = "the trained network depends on it"
    ALIKE = "alike in both"
    DIFFERS_ASSOCIATED = "differs, is associated"
    DIFFERS = "differs"
    ASSOCIATED = "is associated"
    UNKNOWN = "can't tell"


@dataclass(frozen=True)
class Evidence:
    """All that is known of one possible reason in one pair of networks.

    Fields:
        reason: the possible reason.
        plain, residual: its value in each network; None if not recorded.
        difference: residual less plain, in the unit of the series; None if either is missing.
        rho, p_value, runs: its association with accuracy over seeds, within networks; rho is NaN
            if there are too few seeds.
        verdict: the verdict on "it explains the difference".
        level: how far the evidence goes.
    """

    reason: PossibleReason
    plain: Mean | None
    residual: Mean | None
    difference: Mean | None
    rho: float
    p_value: float
    runs: int
    verdict: Verdict
    level: EvidenceLevel


@dataclass(frozen=True)
class NetworkComparison:
    """The possible reasons in one pair of networks, with the interventions on it."""

    pair: NetworkPair
    evidence: tuple[Evidence, ...]
    interventions: Interventions

    @property
    def missing(self) -> list[str]:
        """The names of the possible reasons that neither network recorded."""
        found = {each.reason.key for each in self.evidence}
        return [reason.name for reason in POSSIBLE_REASONS if reason.key not in found]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdicts.

    Fields:
        removable_share: share of the difference that an intervention must be able to remove.
        small_loss: a smaller loss of accuracy does not count.
        alpha: level of the permutation test of an association.
    """

    removable_share: float
    small_loss: float
    alpha: float


@dataclass(frozen=True)
class NetworkSeries:
    """The series of a possible reason in one network.

    Fields:
        by_seed: the series of each run that recorded it; shape [steps] or [epochs].
        constructed: whether the value follows from the architecture, without measuring.
    """

    by_seed: dict[int | None, Array]
    constructed: bool = False

    def mean(self, over: str) -> Mean | None:
        """Its mean over seeds; None if nothing was recorded."""
        if not self.by_seed:
            return None
        parts = list(self.by_seed.values())
        if self.constructed:
            value = float(parts[0][0])
            return Mean(value, value, value, "by construction")
        return mean_over_epochs(parts) if over == "epoch" else mean_over_steps(parts)


def compare_networks(
    experiment: Experiment, pair: NetworkPair, thresholds: Thresholds
) -> NetworkComparison:
    """Weigh every possible reason that at least one network of `pair` recorded."""
    found = interventions_on(experiment, pair)
    plain = [_series(experiment.of_network(pair.plain), one) for one in POSSIBLE_REASONS]
    residual = [_series(experiment.of_network(pair.residual), one) for one in POSSIBLE_REASONS]
    place = [one.key for one in POSSIBLE_REASONS].index(PATH_LENGTH)
    plain[place] = _without_skips(experiment, pair)
    links = _associations(experiment, {pair.plain: plain, pair.residual: residual})
    evidence = []
    for reason, first, second, rho, p_value, runs in zip(
        POSSIBLE_REASONS,
        plain,
        residual,
        links.correlations,
        links.p_values,
        links.runs,
        strict=True,
    ):
        moved = reason.key == STALENESS and found.difference_removed is not None
        if not (first.by_seed or second.by_seed or moved):
            continue
        gap = _difference(reason, first, second)
        verdict, level = verdict_and_level(reason, gap, p_value, found, thresholds)
        values = (first.mean(reason.over), second.mean(reason.over))
        evidence.append(Evidence(reason, *values, gap, rho, p_value, runs, verdict, level))
    return NetworkComparison(pair, tuple(evidence), found)


def verdict_and_level(
    reason: PossibleReason,
    difference: Mean | None,
    p_value: float,
    found: Interventions,
    thresholds: Thresholds,
) -> tuple[Verdict, EvidenceLevel]:
    """The verdict on "`reason` explains the difference", and how far the evidence goes."""
    by_intervention = _by_intervention(reason, found, thresholds)
    if by_intervention is not None:
        return by_intervention
    differs, associated = False, p_value < thresholds.alpha  # False if it is NaN
    if difference is not None and difference.low is not None and difference.high is not None:
        if -reason.margin < difference.low and difference.high < reason.margin:
            return Verdict.CONTRADICTED, EvidenceLevel.ALIKE
        differs = difference.low > 0 or difference.high < 0
    if differs:
        return (
            Verdict.INCONCLUSIVE,
            EvidenceLevel.DIFFERS_ASSOCIATED if associated else EvidenceLevel.DIFFERS,
        )
    return Verdict.INCONCLUSIVE, EvidenceLevel.ASSOCIATED if associated else EvidenceLevel.UNKNOWN


def _by_intervention(
    reason: PossibleReason, found: Interventions, thresholds: Thresholds
) -> tuple[Verdict, EvidenceLevel] | None:
    gap, removed = found.mean_difference, found.difference_removed
    if reason.key == STALENESS and gap and removed:
        if gap.low is not None and gap.low > 0:  # there is a difference to explain
            if lies_above(removed, 0.0):
                return Verdict.SUPPORTED, EvidenceLevel.CAUSE
            if lies_below(removed, thresholds.removable_share * gap.low):
                return Verdict.CONTRADICTED, EvidenceLevel.NO_CAUSE
        # If the intervention is inconclusive, the staleness itself cannot decide.
        return Verdict.INCONCLUSIVE, EvidenceLevel.UNKNOWN
    if reason.key == PATH_LENGTH and found.loss_without_skips:
        # Damage to a trained network says nothing about training: it cannot support on its own.
        if lies_above(found.loss_without_skips, 0.0):
            return Verdict.INCONCLUSIVE, EvidenceLevel.NETWORK_RESTS_ON_IT
        if lies_below(found.loss_without_skips, thresholds.small_loss):
            return Verdict.CONTRADICTED, EvidenceLevel.NO_CAUSE
    return None


def lies_above(mean: Mean, bound: float) -> bool:
    """Whether the whole interval of `mean` lies above `bound`."""
    return mean.low is not None and mean.low > bound


def lies_below(mean: Mean, bound: float) -> bool:
    """Whether the whole interval of `mean` lies below `bound`."""
    return mean.high is not None and mean.high < bound


def _series(runs: list[Run], reason: PossibleReason) -> NetworkSeries:
    return NetworkSeries({run.seed: found for run in runs if len(found := reason.measure(run))})


def _without_skips(experiment: Experiment, pair: NetworkPair) -> NetworkSeries:
    """The path length of the plain network: its only path passes every block."""
    tables = [run.table(PATHS) for run in experiment.of_network(pair.residual)]
    lengths = [float(table["length"].max()) for table in tables if len(table)]
    if not lengths:
        return NetworkSeries({})
    blocks = np.array([max(lengths)])
    return NetworkSeries(
        {run.seed: blocks for run in experiment.of_network(pair.plain)}, constructed=True
    )


def _difference(
    reason: PossibleReason, plain: NetworkSeries, residual: NetworkSeries
) -> Mean | None:
    """Residual less plain: paired by seed with three seeds or more, else from the intervals."""
    seeds = [seed for seed in plain.by_seed if seed in residual.by_seed]
    if len(seeds) >= MIN_SEEDS:
        return mean_over_steps(
            [[residual.by_seed[seed].mean() - plain.by_seed[seed].mean()] for seed in seeds]
        )
    first, second = residual.mean(reason.over), plain.mean(reason.over)
    if first is None or second is None or first.value is None or second.value is None:
        return None
    value = first.value - second.value
    if first.low is None or first.high is None:
        return Mean(value, None, None, first.method)
    if second.low is None or second.high is None:
        return Mean(value, None, None, second.method)
    low, high = difference_interval(
        (first.value, first.low, first.high), (second.value, second.low, second.high)
    )
    return Mean(value, low, high, f"from both networks' intervals ({first.method})")


def _associations(
    experiment: Experiment, by_network: dict[str, list[NetworkSeries]]
) -> SeedAssociations:
    """Each possible reason with the accuracy at the last epoch, over the seeds of each network."""
    values, scores = [], []
    for network, reasons in by_network.items():
        accuracy = {run.seed: last_accuracy(run) for run in experiment.of_network(network)}
        seeds = [seed for seed, score in accuracy.items() if np.isfinite(score)]
        table = [
            [series.by_seed[seed].mean() if seed in series.by_seed else np.nan for seed in seeds]
            for series in reasons
        ]
        values.append(np.array(table, dtype=float).reshape(len(reasons), len(seeds)))
        scores.append(np.array([accuracy[seed] for seed in seeds]))
    return seed_associations(values, scores)
