"""Why does a residual network reach another accuracy than its plain counterpart?

Compares all possible reasons. A possible reason is called a cause only if an intervention changed
both it and accuracy. Otherwise it differs, is associated with accuracy, or cannot be told.
"""

from analyses.reading.matching import mismatch_reason
from analyses.reading.pairs import NetworkPair, residual_pairs, runs_of_pair
from analyses.reasons.evidence import NetworkComparison, Thresholds, compare_networks
from analyses.reasons.figures import reasons_figure
from analyses.reasons.findings import pair_findings, skip_sentence
from analyses.reasons.possible_reasons import POSSIBLE_REASONS
from analyses.reasons.tables import effects_table, reasons_table
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Table, Verdict
from analyses.statistics.associations_over_seeds import MIN_SEEDS_TO_CORRELATE
from analyses.statistics.bootstrap import RESAMPLES
from analyses.statistics.means import MIN_SEEDS
from analyses.wording.phrases import listing, plural, slug
from gradflow.runs.reading.run import Experiment

REMOVABLE_SHARE = 0.1
SMALL_LOSS = 0.05
ALPHA = 0.05
SOURCES = (
    "He et al. 2015, Deep residual learning for image recognition, section 4.1",
    "Balduzzi et al. 2017, The shattered gradients problem (coherence)",
    "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow networks",
    "McCandlish et al. 2018, An empirical model of large-batch training (noise scale)",
    "Westfall & Young 1993, Resampling-based multiple testing (maximum statistic)",
    "Zou & Donner 2008, Construction of confidence limits about effect measures",
)


def run(
    experiment: Experiment,
    removable_share: float = REMOVABLE_SHARE,
    small_loss: float = SMALL_LOSS,
    alpha: float = ALPHA,
) -> AnalysisResult:
    """Weigh the possible reasons for the difference between each plain and residual network.

    `removable_share` is the share of the difference that an intervention must be able to remove,
    `small_loss` the loss of accuracy that is too small to matter, `alpha` the level of the
    permutation test.

    Raises `NotApplicableError` if there is no residual network with a plain counterpart trained
    alike, or no pair recorded any possible reason.
    """
    thresholds = Thresholds(removable_share, small_loss, alpha)
    pairs = [pair for pair in residual_pairs(experiment) if _trained_alike(experiment, pair)]
    compared = [compare_networks(experiment, pair, thresholds) for pair in pairs]
    compared = [one for one in compared if one.evidence]
    if not compared:
        raise NotApplicableError(
            "this question compares a residual network and its plain counterpart, and the "
            "experiment holds no such pair with measurements, trained on the same images with the "
            "same options"
        )
    findings = [finding for one in compared for finding in pair_findings(one, thresholds)]
    return AnalysisResult(
        summary=" ".join(_summary(one) for one in compared),
        findings=tuple(findings),
        figures=tuple(reasons_figure(experiment.networks, one) for one in compared),
        tables=tuple(_tables(compared)),
        method=_method(),
        sources=SOURCES,
    )


def _trained_alike(experiment: Experiment, pair: NetworkPair) -> bool:
    # Training with skips is an intervention only if nothing else differs.
    first, *others = runs_of_pair(experiment, pair)
    return not any(mismatch_reason(first, other) for other in others)


def _summary(one: NetworkComparison) -> str:
    causes = _named(one, Verdict.SUPPORTED)
    excluded = _named(one, Verdict.CONTRADICTED)
    open_ones = _named(one, Verdict.INCONCLUSIVE)
    said = [
        f"By intervention, part of the difference comes from {listing(causes)}"
        if causes
        else "No recorded intervention shows a cause"
    ]
    if excluded:
        said.append(f"{listing(excluded)} {'is' if len(excluded) == 1 else 'are'} ruled out")
    if open_ones:
        said.append(f"for {listing(open_ones)} it cannot be told")
    return f"{skip_sentence(one)} {'; '.join(said)}."


def _named(one: NetworkComparison, verdict: Verdict) -> list[str]:
    return [f"the {each.reason.name}" for each in one.evidence if each.verdict is verdict]


def _tables(compared: list[NetworkComparison]) -> list[Table]:
    tables = []
    for one in compared:
        names = f"{one.pair.plain} and {one.pair.residual}"
        key = slug(f"{one.pair.plain}-{one.pair.residual}")
        listed = Table(f"candidates-{key}", f"The possible reasons in {names}", reasons_table(one))
        tables += [listed, Table(f"effects-{key}", f"Interventions on {names}", effects_table(one))]
    return tables


def _method() -> str:
    definitions = "; ".join(f"{one.name}: {one.definition}" for one in POSSIBLE_REASONS)
    return (
        f"{definitions}. Each is averaged over the steps or epochs of a run, then over seeds "
        f"(ratios geometrically); interval: with {plural(MIN_SEEDS, 'seed')} or more, "
        "Student's, paired for the difference; else moving-block bootstrap over steps or epochs. "
        "Association: Spearman's correlation over the seeds of one network with its accuracy at "
        "the last epoch, averaged over both; it needs at least "
        f"{plural(MIN_SEEDS_TO_CORRELATE, 'seed')}; p by {RESAMPLES:,} permutations "
        "of accuracy within each network, the maximum over all reasons each time. "
        "Interventions: re-estimating the batch-norm statistics (difference of accuracy over all "
        "epochs before and after), training with and without skips, scaling the skips of "
        "the trained network, deleting its blocks."
    )


ANALYSIS = Analysis(
    key="better_network",
    title="Reasons for the difference",
    question="Why is the residual network better than the plain one, if it is?",
    run=run,
    background=(
        "A difference that goes along with accuracy need not be its cause; here a cause is only "
        "what was changed on purpose and changed accuracy too."
    ),
    order=180,
)
