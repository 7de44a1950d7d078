"""How long are the paths that the gradient takes through the residual blocks?

That short paths carry most is contradicted if less than half of the gradient came along paths
through fewer than half of the branches.
"""

import numpy as np
import pandas as pd

from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.skips.path_lengths.figures import path_figures
from analyses.skips.path_lengths.measure import TABLE, PathLengths, path_lengths
from analyses.statistics.estimates import estimate_of, estimate_table
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number
from analyses.wording.phrases import slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from gradflow.runs.reading.run import Experiment

HALF = 0.5
HYPOTHESIS = (
    "Most of the gradient at the first block's input[ of {}] came along paths shorter than half "
    "the blocks."
)
LEAD = "those through fewer than half of the blocks carry a share of {}"
NEGATIVE_SHARES = (
    "Shares are projections on the whole gradient: they add up to 1, and those of lengths that "
    "oppose it are negative, so a share can exceed 1."
)
ONE_BATCH = (
    "Measured on one batch of training images, the same at every epoch: intervals cover epochs or "
    "seeds, not other images."
)
DRAWN_AT_RANDOM = (
    "Paths were drawn at random for each length. This adds sampling error to every share, so they "
    "add up to 1 only approximately; it also makes the norms too large."
)
SOURCES = (
    "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow networks "
    "(gradient by path length, effective paths)",
)


def run(experiment: Experiment, half: float = HALF) -> AnalysisResult:
    """Split the gradient at the first block's input by the number of branches that it came through.

    `half` is the share above which the short paths are said to carry most.

    Raises `NotApplicableError` if no run recorded path lengths.
    """
    networks = by_network(runs_with(experiment, TABLE, "gradients by path length"))
    profiles = [path_lengths(name, runs) for name, runs in networks.items()]
    findings = tuple(_finding(one, half) for one in profiles)
    together = sentence([_told(one, half) for one in profiles], LEAD)
    return AnalysisResult(
        summary=together,
        findings=findings,
        figures=path_figures(experiment.networks, profiles),
        tables=(
            Table(
                "networks",
                "Paths of each network",
                estimate_table({one.network: _estimates(one) for one in profiles}),
            ),
            Table("lengths", "Share of the gradient by path length", _length_table(profiles)),
        ),
        method=(
            "Each of n residual blocks passes the gradient through its branch or its skip, so "
            "there are 2^n paths, n! / (k! (n - k)!) of them of length k. g_k is the sum of the "
            "gradient at the first block's input over all paths of length k, and the sum g of all "
            "g_k is the whole gradient; the share of length k is <g_k, g> / <g, g>. Effective path "
            "length: the mean of k weighted by the shares, and weighted by |g_k| as Veit et al. "
            "do. Batch-norm statistics are frozen. Averaged over epochs; interval by moving-block "
            "bootstrap over epochs from eight on, or Student's over three and more seeds."
        ),
        sources=SOURCES,
        together={"short-paths": together},
    )


def _finding(one: PathLengths, half: float) -> Finding:
    verdict = _verdict(one, half)
    return Finding(
        key=slug(f"short-paths-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESIS, one.network),
        contradicted_by=f"A share of the short paths whose interval lies below {number(half)}.",
        verdict=verdict,
        estimates=_estimates(one),
        threshold=(
            f"supported if the 95 % interval of the short paths' share lies above {number(half)}"
        ),
        meaning=sentence([_told(one, half)], LEAD),
        next_step=(
            "Scale the skips down and see what happens to accuracy: a share of the gradient "
            "is not a share of the benefit."
            if verdict is not Verdict.INCONCLUSIVE
            else "Measure the path lengths at more epochs, or train three seeds and more."
        ),
        caveats=(NEGATIVE_SHARES, ONE_BATCH, *((DRAWN_AT_RANDOM,) if one.sampled else ())),
        statement=without_network(HYPOTHESIS),
        evidence=("share-by-length", "effective-length", "networks", "lengths"),
    )


def _verdict(one: PathLengths, half: float) -> Verdict:
    return verdict_above(one.short.low, one.short.high, half)


def _told(one: PathLengths, half: float) -> NetworkStatement:
    most = "most of the gradient at the first block's input"
    clause = {
        Verdict.SUPPORTED: f"{most} came along short paths",
        Verdict.CONTRADICTED: f"{most} did not come along short paths",
        Verdict.INCONCLUSIVE: f"it cannot be told whether {most} came along short paths",
    }[_verdict(one, half)]
    share = estimate_of("", one.short)
    if share.value is None:
        return NetworkStatement(one.network, clause, detail="no share could be computed")
    expected = float(one.all_paths[: int(np.ceil(one.blocks / 2))].sum())
    return NetworkStatement(
        one.network, clause, f"{share.words}, against {number(expected)} of all paths"
    )


def _estimates(one: PathLengths) -> tuple[Estimate, ...]:
    return (
        estimate_of("share of paths shorter than half the blocks", one.short),
        estimate_of("effective path length, by share", one.by_share, "branches"),
        estimate_of("effective path length, by gradient norm", one.by_norm, "branches"),
        estimate_of("share along skips only", one.skips_only),
        Estimate(
            "mean length of all paths",
            one.blocks / 2,
            unit="branches",
            method=f"half of {one.blocks} blocks, by counting; no interval",
        ),
    )


def _length_table(profiles: list[PathLengths]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "network": one.network,
                "length": one.shares.index,
                "of all paths": one.all_paths[one.shares.index],
                "share, first epoch": one.shares.iloc[:, 0].to_numpy(),
                "share, last epoch": one.shares.iloc[:, -1].to_numpy(),
                "of the norms, last epoch": one.norms.iloc[:, -1].to_numpy(),
            }
        )
        for one in profiles
    ]
    return pd.concat(parts, ignore_index=True)


ANALYSIS = Analysis(
    key="path_lengths",
    title="Path lengths",
    question="How long are the paths along which the gradient comes?",
    run=run,
    background=(
        "A residual network holds many paths from loss to input, since at each block the "
        "gradient takes the skip or the branch; the length of a path is the number of "
        "branches on it."
    ),
    order=140,
)
