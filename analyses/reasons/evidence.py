"""The evidence on each candidate: its value in both networks, its associations, interventions."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from analyses.reading.pairs import NetworkPair
from analyses.reading.probe_tables import mean_over_epochs
from analyses.reasons.candidates import CANDIDATES, PATH_LENGTH, STALENESS, Candidate
from analyses.reasons.interventions import Interventions, interventions, last_accuracy
from analyses.result import Verdict
from analyses.skips.path_lengths import PATHS
from analyses.statistics import Array
from analyses.statistics.associations_over_seeds import SeedAssociations, seed_associations
from analyses.statistics.differences import difference_interval
from analyses.statistics.means import MIN_SEEDS, Mean, mean_over_steps
from gradflow.runs.reading.run import Experiment, Run


class Standing(StrEnum):
    """How far the evidence on a candidate goes; only an intervention makes a cause."""

    CAUSE = "a cause: an intervention moved both"
    NO_CAUSE = "no cause: an intervention left accuracy"
    RESTS = "the trained network rests on it"
    ALIKE = "alike in both"
    DIFFERS_ASSOCIATED = "differs, is associated"
    DIFFERS = "differs"
    ASSOCIATED = "is associated"
    UNKNOWN = "can't tell"


@dataclass(frozen=True)
class Evidence:
    """All that is known of one candidate in one pair of networks.

    Fields:
        candidate: which.
        plain, residual: its value in each; None where not recorded.
        difference: residual less plain, in the series' own unit; None where either is missing.
        rho, p_value, runs: its association with accuracy over seeds, within networks; rho is NaN
            where there are too few seeds.
        verdict: on "it explains the difference".
        standing: how far the evidence goes.
    """

    candidate: Candidate
    plain: Mean | None
    residual: Mean | None
    difference: Mean | None
    rho: float
    p_value: float
    runs: int
    verdict: Verdict
    standing: Standing


@dataclass(frozen=True)
class Comparison:
    """The candidates of one pair, with the interventions on it."""

    pair: NetworkPair
    evidence: tuple[Evidence, ...]
    interventions: Interventions

    @property
    def missing(self) -> list[str]:
        """The names of the candidates that neither network recorded."""
        found = {each.candidate.key for each in self.evidence}
        return [candidate.name for candidate in CANDIDATES if candidate.key not in found]


@dataclass(frozen=True)
class Rules:
    """Thresholds of the verdicts.

    Fields:
        part: share of the difference that an intervention must be able to remove.
        small: accuracy below which a loss is none to speak of.
        rate: of the permutation test of an association.
    """

    part: float
    small: float
    rate: float


@dataclass(frozen=True)
class Side:
    """One network's series of a candidate.

    Fields:
        by_seed: of each run that recorded it; shape [steps] or [epochs].
        constructed: whether the value follows from how the network is built, without measuring.
    """

    by_seed: dict[int | None, Array]
    constructed: bool = False

    def mean(self, over: str) -> Mean | None:
        """Its mean over seeds; None where nothing was recorded."""
        if not self.by_seed:
            return None
        parts = list(self.by_seed.values())
        if self.constructed:
            value = float(parts[0][0])
            return Mean(value, value, value, "by construction")
        return mean_over_epochs(parts) if over == "epoch" else mean_over_steps(parts)


def compare(experiment: Experiment, pair: NetworkPair, rules: Rules) -> Comparison:
    """Weigh every candidate that at least one network of `pair` recorded."""
    found = interventions(experiment, pair)
    plain = [_side(experiment.of_network(pair.plain), one) for one in CANDIDATES]
    residual = [_side(experiment.of_network(pair.residual), one) for one in CANDIDATES]
    place = [one.key for one in CANDIDATES].index(PATH_LENGTH)
    plain[place] = _without_skips(experiment, pair)
    links = _associations(experiment, {pair.plain: plain, pair.residual: residual})
    evidence = []
    for candidate, first, second, rho, p_value, runs in zip(
        CANDIDATES, plain, residual, links.correlations, links.p_values, links.runs, strict=True
    ):
        moved = candidate.key == STALENESS and found.removed is not None
        if not (first.by_seed or second.by_seed or moved):
            continue
        gap = _difference(candidate, first, second)
        verdict, standing = judge(candidate, gap, p_value, found, rules)
        values = (first.mean(candidate.over), second.mean(candidate.over))
        evidence.append(Evidence(candidate, *values, gap, rho, p_value, runs, verdict, standing))
    return Comparison(pair, tuple(evidence), found)


def judge(
    candidate: Candidate,
    difference: Mean | None,
    p_value: float,
    found: Interventions,
    rules: Rules,
) -> tuple[Verdict, Standing]:
    """The verdict on "`candidate` explains the difference", and how far the evidence goes."""
    by_intervention = _by_intervention(candidate, found, rules)
    if by_intervention is not None:
        return by_intervention
    differs, associated = False, p_value < rules.rate  # False where it is NaN
    if difference is not None and difference.low is not None and difference.high is not None:
        if -candidate.margin < difference.low and difference.high < candidate.margin:
            return Verdict.CONTRADICTED, Standing.ALIKE
        differs = difference.low > 0 or difference.high < 0
    if differs:
        return (
            Verdict.INCONCLUSIVE,
            Standing.DIFFERS_ASSOCIATED if associated else Standing.DIFFERS,
        )
    return Verdict.INCONCLUSIVE, Standing.ASSOCIATED if associated else Standing.UNKNOWN


def _by_intervention(
    candidate: Candidate, found: Interventions, rules: Rules
) -> tuple[Verdict, Standing] | None:
    if candidate.key == STALENESS and found.gap and found.removed:
        if found.gap.low is not None and found.gap.low > 0:  # there is a difference to explain
            if above(found.removed, 0.0):
                return Verdict.SUPPORTED, Standing.CAUSE
            if below(found.removed, rules.part * found.gap.low):
                return Verdict.CONTRADICTED, Standing.NO_CAUSE
        # What an intervention leaves open is not settled by how stale the statistics are.
        return Verdict.INCONCLUSIVE, Standing.UNKNOWN
    if candidate.key == PATH_LENGTH and found.unscaled:
        # Damage to a trained network is no difference in training: it never supports by itself.
        if above(found.unscaled, 0.0):
            return Verdict.INCONCLUSIVE, Standing.RESTS
        if below(found.unscaled, rules.small):
            return Verdict.CONTRADICTED, Standing.NO_CAUSE
    return None


def above(mean: Mean, bound: float) -> bool:
    """Whether the whole interval of `mean` lies above `bound`."""
    return mean.low is not None and mean.low > bound


def below(mean: Mean, bound: float) -> bool:
    """Whether the whole interval of `mean` lies below `bound`."""
    return mean.high is not None and mean.high < bound


def _side(runs: list[Run], candidate: Candidate) -> Side:
    return Side({run.seed: found for run in runs if len(found := candidate.measure(run))})


def _without_skips(experiment: Experiment, pair: NetworkPair) -> Side:
    """Without skips there is one path, and it passes every block."""
    tables = [run.table(PATHS) for run in experiment.of_network(pair.residual)]
    lengths = [float(table["length"].max()) for table in tables if len(table)]
    if not lengths:
        return Side({})
    blocks = np.array([max(lengths)])
    return Side({run.seed: blocks for run in experiment.of_network(pair.plain)}, constructed=True)


def _difference(candidate: Candidate, plain: Side, residual: Side) -> Mean | None:
    """Residual less plain: paired by seed from three seeds on, else from the two intervals."""
    seeds = [seed for seed in plain.by_seed if seed in residual.by_seed]
    if len(seeds) >= MIN_SEEDS:
        return mean_over_steps(
            [[residual.by_seed[seed].mean() - plain.by_seed[seed].mean()] for seed in seeds]
        )
    first, second = residual.mean(candidate.over), plain.mean(candidate.over)
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


def _associations(experiment: Experiment, sides: dict[str, list[Side]]) -> SeedAssociations:
    """Each candidate with the accuracy at the last epoch, over the seeds of each network."""
    values, scores = [], []
    for network, candidates in sides.items():
        accuracy = {run.seed: last_accuracy(run) for run in experiment.of_network(network)}
        seeds = [seed for seed, score in accuracy.items() if np.isfinite(score)]
        table = [
            [side.by_seed[seed].mean() if seed in side.by_seed else np.nan for seed in seeds]
            for side in candidates
        ]
        values.append(np.array(table, dtype=float).reshape(len(candidates), len(seeds)))
        scores.append(np.array([accuracy[seed] for seed in seeds]))
    return seed_associations(values, scores)
