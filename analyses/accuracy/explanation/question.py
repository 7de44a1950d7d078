"""What explains the jumps: sampling noise, stale batch-norm statistics, or real change?

Only real change of the function can come from the gradients directly. Real jumps are contradicted
by a share of the movement below one half; a link with the gradients by correlations whose
intervals exclude strong ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analyses.accuracy.explanation.figures import link_figure, share_figure
from analyses.accuracy.explanation.findings import (
    GRADIENTS_AND_REAL_CHANGE,
    STALENESS_AND_REMOVED_MOVEMENT,
    link_finding,
    link_sentence,
    share_finding,
    share_sentence,
    staleness_finding,
)
from analyses.accuracy.explanation.links import (
    Link,
    correlations,
    link,
    real_changes,
    removed_movement,
)
from analyses.accuracy.explanation.measure import MIN_CHANGES_TO_SPLIT, Decomposition, decompose
from analyses.accuracy.explanation.quantities import epoch_quantities, staleness
from analyses.accuracy.recalibration import RecalibrationSeries, recalibration_series
from analyses.reading.predictions import duplicates_caveat, right_images
from analyses.reading.runs import by_network, seed_label
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Finding, Table
from analyses.statistics.bootstrap import RESAMPLES
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Experiment, Run

HALF = 0.5
ALPHA = 0.05
STRONG = 0.5
METHOD = (
    "Movement T = sum over epochs and seeds of delta^2, delta the change of validation accuracy. "
    "Sampling noise: its McNemar variance, v = (b + c)/n^2 - (b - c)^2/n^3 from the discordant "
    "counts b and c on n images, summed. Stale statistics: the movement beyond noise, less the "
    "movement left with batch-norm statistics re-estimated on training images, weights unchanged. "
    "Steady learning: the squared least-squares fit a + b/k (k counts the changes) to the changes "
    "left, less its noise; real jumps: the rest, less its noise. The parts add up to T; none is "
    f"cut at 0 or 1. Intervals: bootstrap over images ({RESAMPLES:,} resamples, the same images in "
    "both series); with 3 seeds or more, Student's over seeds. Association: Spearman's correlation "
    "of the change left after re-estimation with each gradient quantity of the same and the "
    "previous epoch, the fit a + b/k removed from both, averaged over seeds; the largest absolute "
    "one is compared with its permutation distribution, the maximum over quantities and epochs "
    "each time. With 4 seeds or more, the changes are swapped among seeds; with fewer, they are "
    "rotated within each seed, and the larger of two p-values counts: with the course of training "
    "and without."
)
SOURCES = (
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
    "Wu & Johnson 2021, Rethinking 'batch' in BatchNorm (precise statistics)",
    "Westfall & Young 1993, Resampling-based multiple testing (maximum statistic)",
    "Cochran 1977, Sampling techniques (variance of a ratio)",
)


@dataclass(frozen=True)
class NetworkExplanation:
    """The results for one network.

    Fields:
        network: its name.
        runs: the runs that were used.
        left_out: number of runs that are too short to separate learning from jumps, while others
            are long enough.
        re_estimated: whether the batch-norm statistics of these runs were re-estimated.
        shares: the parts of the movement.
        gradient_link: association of the real change with gradient quantities.
        staleness_link: association of the removed movement with the staleness of the statistics;
            None if not recorded.
    """

    network: str
    runs: tuple[Run, ...]
    left_out: int
    re_estimated: bool
    shares: Decomposition
    gradient_link: Link
    staleness_link: Link | None


def run(
    experiment: Experiment, half: float = HALF, alpha: float = ALPHA, strong: float = STRONG
) -> AnalysisResult:
    """Split the movement of each network's accuracy into parts, and find what goes with them.

    `half` is the share from which real jumps are most of the movement. An association needs a
    p-value below `alpha`; it is contradicted if correlations as large as `strong` are excluded.

    Raises `NotApplicableError` if no run has predictions of two epochs.
    """
    found = [
        one
        for name, runs in by_network(list(experiment.runs)).items()
        if (one := _explanation(name, runs)) is not None
    ]
    if not found:
        raise NotApplicableError(
            "no run recorded predictions by image (table predictions) at two epochs or more, which "
            "a change of accuracy needs"
        )
    findings = tuple(_findings(found, half, alpha, strong))
    together = {
        "explanation": share_sentence({one.network: one.shares for one in found}, half),
        "association": link_sentence(
            GRADIENTS_AND_REAL_CHANGE,
            {one.network: one.gradient_link for one in found},
            alpha,
            strong,
        ),
    }
    summary = " ".join(together.values())
    stale = {one.network: one.staleness_link for one in found if one.staleness_link is not None}
    if stale:
        what = STALENESS_AND_REMOVED_MOVEMENT
        together[what.topic] = link_sentence(what, stale, alpha, strong)
    moved = {one.network: one.shares for one in found if one.shares.shares}
    linked = pd.concat(
        [correlations(one.network, one.gradient_link) for one in found], ignore_index=True
    )
    doses = [
        correlations(one.network, one.staleness_link)
        for one in found
        if one.staleness_link is not None
    ]
    return AnalysisResult(
        summary=summary,
        findings=findings,
        figures=(
            *((share_figure(moved),) if moved else ()),
            *((link_figure(experiment.networks, linked),) if len(linked) else ()),
        ),
        tables=(
            Table("shares", "Parts of the movement of validation accuracy", _table(found)),
            Table("associations", "Rank correlations with the real change", linked),
            *(
                (
                    Table(
                        "doses",
                        "Rank correlations with the removed movement",
                        pd.concat(doses, ignore_index=True),
                    ),
                )
                if doses
                else ()
            ),
        ),
        method=METHOD,
        sources=SOURCES,
        together=together,
    )


def _explanation(network: str, runs: list[Run]) -> NetworkExplanation | None:
    pairs = [(one, pair) for one in runs if (pair := recalibration_series(one)) is not None]
    re_estimated = bool(pairs)
    if not pairs:
        pairs = [(one, pair) for one in runs if (pair := _running_alone(one)) is not None]
    if not pairs:
        return None
    longest = max(len(pair.epochs) for _, pair in pairs)
    enough = [
        item for item in pairs if len(item[1].epochs) > min(MIN_CHANGES_TO_SPLIT, longest - 1)
    ]
    left_out, pairs = len(pairs) - len(enough), enough
    used, series = tuple(one for one, _ in pairs), [pair for _, pair in pairs]
    doses = [staleness(one) for one in used] if re_estimated else []
    return NetworkExplanation(
        network=network,
        runs=used,
        left_out=left_out,
        re_estimated=re_estimated,
        shares=decompose(series, re_estimated),
        gradient_link=link(
            [epoch_quantities(one) for one in used], list(map(real_changes, series))
        ),
        staleness_link=(
            link(doses, list(map(removed_movement, series)))
            if doses and all(map(len, doses))
            else None
        ),
    )


def _running_alone(one: Run) -> RecalibrationSeries | None:
    """The series of a run without re-estimated statistics: both are the running one."""
    if not len(one.predictions):
        return None
    right = right_images(one)
    if len(right) < 2 or not right.shape[1]:
        return None
    values = right.to_numpy(dtype=float)
    return RecalibrationSeries(seed_label(one), tuple(map(int, right.index)), values, values)


def _findings(
    found: list[NetworkExplanation], half: float, alpha: float, strong: float
) -> Iterable[Finding]:
    for one in found:
        caveats = (*_short_runs(one.left_out), *duplicates_caveat(list(one.runs)))
        yield share_finding(one.network, one.shares, one.re_estimated, half, caveats)
    for one in found:
        yield link_finding(one.network, one.gradient_link, one.re_estimated, alpha, strong)
    for one in found:
        if one.staleness_link is not None:
            yield staleness_finding(one.network, one.staleness_link, alpha, strong)


def _short_runs(left_out: int) -> tuple[str, ...]:
    if not left_out:
        return ()
    return (
        f"Left out: {plural(left_out, 'run')} of fewer than {MIN_CHANGES_TO_SPLIT + 1} epochs, "
        "too few to separate steady learning from jumps.",
    )


def _table(found: list[NetworkExplanation]) -> pd.DataFrame:
    rows = [
        (one.network, share.name, share.value, share.low, share.high)
        for one in found
        for share in one.shares.shares
    ]
    return pd.DataFrame(rows, columns=["network", "part", "share", "95 % low", "95 % high"])


ANALYSIS = Analysis(
    key="jump_explanation",
    title="Explanation of the jumps",
    question=(
        "How much of the movement of validation accuracy is noise, stale statistics or real "
        "change, and do the gradients go with the real part?"
    ),
    run=run,
    background=(
        "Accuracy on few images moves from epoch to epoch for several reasons: the choice of "
        "images, running statistics that lag behind the weights, steady learning, and real jumps "
        "of the function that the network computes."
    ),
    order=50,
)
