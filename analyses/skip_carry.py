"""How much of the gradient comes along the skip connections rather than through the branches?

What would count against the skips: a mean share below one half.
"""

import numpy as np
import pandas as pd

from analyses.frames import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.skip_figures import skip_figures
from analyses.skip_shares import ADDITIVE, Carry, carry
from analyses.statistics import verdict_above
from analyses.wording import between, number, plural, slug
from gradflow.runs.reader import Experiment

HALF = 0.5
APPROXIMATION = (
    "The product of shares takes each block to pass on the same share whatever path the gradient "
    "came by, so it approximates the share that came along skips only; the share at one block is "
    "exact."
)


def run(experiment: Experiment, half: float = HALF) -> AnalysisResult:
    """Share of the gradient along skips, by block and epoch.

    `half` is the share from which the skips are said to carry most.

    Raises `NotApplicableError` where no run recorded a residual addition.
    """
    networks = by_network(runs_with(experiment, "junctions", "residual additions"))
    carries = [carry(name, runs) for name, runs in networks.items()]
    findings = tuple(_finding(one, half) for one in carries)
    return AnalysisResult(
        summary=" ".join(
            [finding.meaning for finding in findings] + [_stem_sentence(one) for one in carries]
        ).strip(),
        findings=findings,
        figures=skip_figures(experiment.networks, carries, half),
        tables=(Table("networks", "What the skips carry", _table(carries)),),
        method=(
            "At each residual addition the gradient g at the block's input is the sum of s, which "
            "came through the skip, and b, which came through the branch; the skip's share is "
            "<s, g> / <g, g>. Averaged over blocks at each step; interval by moving-block "
            "bootstrap over steps, or Student's over three and more seeds. The expected number of "
            "branches passed is the sum of the branches' shares, as in Veit et al., where path "
            "lengths are binomial."
        ),
        sources=(
            "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow "
            "networks, section 4",
            "De & Smith 2020, Batch normalization biases residual blocks towards the identity "
            "function in deep networks, section 3",
        ),
    )


def _finding(one: Carry, half: float) -> Finding:
    mean = one.mean
    verdict = verdict_above(mean.low, mean.high, half)
    words = {
        Verdict.SUPPORTED: "The skips carry most of the gradient in {}",
        Verdict.CONTRADICTED: "The branches, not the skips, carry most of the gradient in {}",
        Verdict.INCONCLUSIVE: "Whether the skips carry most of the gradient in {} cannot be told",
    }[verdict].format(one.network)
    said = "no share could be had" if mean.value is None else (
        f"the skips' share is {number(mean.value)} {between(mean.low, mean.high)} "
        f"averaged over {plural(len(one.blocks), 'block')}"
    )  # fmt: skip
    return Finding(
        key=slug(f"skips-carry-{one.network}"),
        network=one.network,
        hypothesis=f"The skips carry most of the gradient in {one.network}.",
        contradicted_by=f"A mean share of the skips whose interval lies below {number(half)}.",
        verdict=verdict,
        estimates=_estimates(one),
        threshold=f"supported where the 95 % interval of the mean share lies above {number(half)}",
        meaning=f"{words}: {said}.",
        next_step=(
            "Take single blocks out of the trained network to see whether what the branches carry "
            "matters to its accuracy: a share of the gradient is no share of the benefit."
        ),
        caveats=(ADDITIVE, APPROXIMATION),
    )


def _stem_sentence(one: Carry) -> str:
    if one.first.value is None:
        return ""
    return (
        f"Of the gradient that reaches the stem of {one.network}, a share of "
        f"{number(one.first.value)} {between(one.first.low, one.first.high)} came through the "
        "first block's skip."
    )


def _estimates(one: Carry) -> tuple[Estimate, ...]:
    named = [
        ("mean share of the skips", one.mean),
        ("mean share, identity shortcuts", one.identity),
        ("mean share, projections", one.projection),
        ("share at the first block, through its skip", one.first),
        ("expected number of branches passed", one.branches),
    ]
    estimates = [
        Estimate(name, mean.value, mean.low, mean.high, method=mean.method)
        for name, mean in named
        if mean is not None
    ]
    product = one.product if np.isfinite(one.product) else None
    estimates.append(
        Estimate(
            "share along skips only, all blocks",
            product,
            method="product of the blocks' mean shares, an approximation without interval",
        )
    )
    return tuple(estimates)


def _table(carries: list[Carry]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"network": one.network, "quantity": estimate.name, "value": estimate.value}
            | {"95 % low": estimate.low, "95 % high": estimate.high}
            for one in carries
            for estimate in _estimates(one)
        ]
    )


ANALYSIS = Analysis(
    key="skip_carry",
    title="What the skips carry",
    question="How much of the gradient comes along the skip connections?",
    run=run,
)
