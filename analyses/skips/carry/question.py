"""How much of the gradient comes along the skips, and how much through the branches?

That the skips carry most is contradicted by a mean share below one half.
"""

import pandas as pd

from analyses.reading.extremes import extreme_rows
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.skips.carry.figures import PRE_ACTIVATION, carry_figures
from analyses.skips.carry.measure import SHARES_ADD_UP, SkipShares, skip_shares
from analyses.statistics.estimates import estimate_of, estimate_table
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import finite, number
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said, message
from gradflow.runs.reading.run import Experiment

HALF = 0.5
HYPOTHESIS = "The skips carry most of the gradient[ in {}]."
LEAD = message("their mean share is {}")
APPROXIMATION = (
    "The product of shares assumes that a block passes on the same share on every path, so it only "
    "approximates the share that came along skips only; the share at one block is exact."
)
MEASURED_APART = (
    "The share along skips only is measured at epoch ends on one batch with frozen batch-norm "
    "statistics, the shares by block in training itself."
)


def run(experiment: Experiment, half: float = HALF) -> AnalysisResult:
    """Compute the share of the gradient along skips, by block and epoch.

    `half` is the share above which the skips are said to carry most.

    Raises `NotApplicableError` if no run recorded a residual addition.
    """
    networks = by_network(runs_with(experiment, "junctions", "residual additions"))
    found = [skip_shares(name, runs) for name, runs in networks.items()]
    findings = tuple(_finding(one, half) for one in found)
    together = sentence([_told(one, half) for one in found], LEAD)
    return AnalysisResult(
        summary=f"{together} {_first_block_sentence(found)}".strip(),
        findings=findings,
        figures=carry_figures(experiment.networks, found, half),
        tables=(
            Table(
                "networks",
                "What the skips carry",
                estimate_table({one.network: _estimates(one) for one in found}),
            ),
            *_variance_tables(found),
        ),
        method=(
            "At each residual addition the gradient g at the block's input is the sum of s, which "
            "came through the skip, and b, which came through the branch; the skip's share is "
            "<s, g> / <g, g>. Averaged over blocks at each step; interval by moving-block "
            "bootstrap over steps, or Student's over three and more seeds. The expected number of "
            "branches passed is the sum of the branches' shares, as in Veit et al., where path "
            "lengths are binomial. The branch's share of the variance is that of the centred "
            f"channel variance at step 0. {PRE_ACTIVATION}"
        ),
        sources=(
            "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow "
            "networks",
            "De & Smith 2020, Batch normalization biases residual blocks towards the identity "
            "function in deep networks",
        ),
        together={"skips-carry": together},
    )


def _finding(one: SkipShares, half: float) -> Finding:
    return Finding(
        key=slug(f"skips-carry-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESIS, one.network),
        contradicted_by=f"A mean share of the skips whose interval lies below {number(half)}.",
        verdict=_verdict(one, half),
        estimates=_estimates(one),
        threshold=f"supported if the 95 % interval of the mean share lies above {number(half)}",
        meaning=sentence([_told(one, half)], LEAD),
        next_step=message(
            "Take single blocks out of the trained network to see whether what the branches carry "
            "matters to its accuracy: a share of the gradient is not a share of the benefit."
        ),
        caveats=(SHARES_ADD_UP, APPROXIMATION if one.skips_only is None else MEASURED_APART),
        statement=without_network(HYPOTHESIS),
        evidence=("share-by-block", "share-map", "networks"),
    )


def _verdict(one: SkipShares, half: float) -> Verdict:
    return verdict_above(one.mean.low, one.mean.high, half)


def _told(one: SkipShares, half: float) -> NetworkStatement:
    clause = {
        Verdict.SUPPORTED: message("the skips carry most of the gradient"),
        Verdict.CONTRADICTED: message("the branches, not the skips, carry most of the gradient"),
        Verdict.INCONCLUSIVE: message(
            "it cannot be told whether the skips carry most of the gradient"
        ),
    }[_verdict(one, half)]
    share = estimate_of("", one.mean)
    if share.value is None:
        return NetworkStatement(one.network, clause, detail=message("no share could be computed"))
    amount = Said(
        "{share} over {blocks}", share=share.words, blocks=plural(len(one.blocks), "block")
    )
    return NetworkStatement(one.network, clause, amount)


def _first_block_sentence(found: list[SkipShares]) -> str:
    shares = [
        f"{share.words} in {one.network}"
        for one in found
        if (share := estimate_of("", one.first)).value is not None
    ]
    if not shares:
        return ""
    return (
        "The share of the gradient at the first block's input that came through that block's skip "
        f"is {listing(shares)}."
    )


def _estimates(one: SkipShares) -> tuple[Estimate, ...]:
    named = [
        (message("mean share of the skips"), one.mean),
        (message("mean share, identity skips"), one.identity),
        (message("mean share, projections"), one.projection),
        (message("mean share, gated skips"), one.gated),
        (message("mean share, mixed streams"), one.mixed),
        (message("share at the first block, through its skip"), one.first),
        (message("expected number of branches passed"), one.branches),
    ]
    estimates = [
        Estimate(name, mean.value, mean.low, mean.high, method=mean.method)
        for name, mean in named
        if mean is not None
    ]
    estimates.append(_along_skips_only(one))
    return tuple(estimates)


def _along_skips_only(one: SkipShares) -> Estimate:
    """Exact if path lengths were measured, otherwise approximated by a product of shares."""
    name = "share along skips only, all blocks"
    if one.skips_only is not None:
        mean = one.skips_only
        method = f"the path of length 0, exact for its batch; {mean.method}"
        return Estimate(name, mean.value, mean.low, mean.high, method=method)
    return Estimate(
        name,
        finite(one.product),
        method="product of the blocks' mean shares, an approximation without interval",
    )


def _variance_tables(found: list[SkipShares]) -> tuple[Table, ...]:
    """The branch's share of the variance at the first step, measured and after De & Smith."""
    parts = [one.variance.assign(network=one.network) for one in found if len(one.variance)]
    if not parts:
        return ()
    names = {
        "network": "network",
        "block": "block",
        "measured": "measured, centred",
        "centred": "theory, centred",
        "uncentred": "theory, mean square: 1/(l + 2)",
    }
    frame = pd.concat(parts, ignore_index=True)[list(names)].rename(columns=names)
    title = "The branch's share of the variance at initialization"
    return (extreme_rows("branch-variance", title, frame, names["measured"]),)


ANALYSIS = Analysis(
    key="skip_carry",
    title="Gradient through the skips",
    question="How much of the gradient comes along the skip connections?",
    run=run,
    background=(
        "At a residual addition the output is the sum of a skip, which leaves its input as "
        "it is or projects it, and a branch of layers; the gradient comes back through "
        "both."
    ),
    order=130,
)
