"""How large are activations and gradients by depth, and would float16 lose the small gradients?

Underflow is contradicted if next to no gradient element is below float16's smallest number.
"""

import math
from functools import partial

import pandas as pd

from analyses.gradients.magnitudes.figures import draw_ridges
from analyses.gradients.magnitudes.measure import HISTOGRAM_TABLES, Magnitudes, magnitudes
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Length, Table, Verdict
from analyses.statistics.means import Mean
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import finite, interval_text, percent
from analyses.wording.phrases import listing, slug, with_network, without_network
from analyses.wording.translatable import Said
from gradflow.runs.reading.magnitudes import FLOAT16
from gradflow.runs.reading.run import Experiment

MAX_LOST_SHARE = 0.05  # share of the gradient elements: a convention
HYPOTHESIS = "Gradients[ of {}] would underflow in float16."
CAVEATS = (
    "Underflow means flushed to zero here. Between its smallest number and its smallest normal one "
    "float16 keeps a value with fewer digits.",
    "The counts are of the values of this training. Training in float16 rounds at every layer, and "
    "autocast keeps some values in float32.",
    "These are gradients with respect to outputs of layers; those of weights differ in size.",
    "These are gradients of the loss as it was reduced: if it is a mean over the batch, they "
    "shrink as the batch grows.",
)


def run(experiment: Experiment, lost: float = MAX_LOST_SHARE) -> AnalysisResult:
    """Show histograms of magnitudes by depth, at the first and the last epoch that have them.

    `lost` is the share of gradient elements too small for float16 above which gradients are said
    to underflow. The default of one in twenty is a convention.

    Raises `NotApplicableError` if no run recorded histograms.
    """
    runs = [run for run in experiment.runs if len(run.gradient_histograms)]
    if not runs:
        raise NotApplicableError(
            "no run recorded histograms of magnitudes (the table gradient_histograms is empty): "
            "train again with train_and_trace, which records them once an epoch, or give the "
            "Tracer histograms=10"
        )
    shown = [magnitudes(name, members) for name, members in by_network(runs).items()]
    findings = tuple(_finding(one, lost) for one in shown)
    return AnalysisResult(
        summary=" ".join(finding.meaning for finding in findings),
        findings=findings,
        figures=(_figure(experiment.networks, shown),),
        tables=(Table("networks", "What float16 would make of each network", _table(shown)),),
        method=(
            "Elements of the outputs of the layers with weights, and of the gradients with "
            "respect to them, counted by power of two. Lost: 0 < |x| < 2^-24, below the smallest "
            "number of float16; subnormal: below 2^-14, its smallest normal number, where digits "
            "are lost. Shares are among the elements other than zero, all layers together, at each "
            "step with histograms; intervals by moving-block bootstrap over these steps, or "
            "Student's over three and more seeds. The loss scale is the largest power of two at "
            "which the largest recorded gradient of any layer stays in range."
        ),
        sources=("Micikevicius et al. 2018, Mixed precision training",),
    )


def _finding(one: Magnitudes, bound: float) -> Finding:
    verdict = verdict_above(one.lost.low, one.lost.high, bound)
    return Finding(
        key=slug(f"underflow-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESIS, one.network),
        contradicted_by=f"A share of lost elements whose interval lies below {percent(bound)}.",
        verdict=verdict,
        estimates=(
            _estimate("gradient elements below 2^-24, lost in float16", one.lost),
            _estimate("gradient elements below 2^-14, its smallest normal number", one.subnormal),
            Estimate(
                f"the same with the loss scaled by {_power(one.largest_loss_scale)}",
                None if one.subnormal_scaled is None else 100 * one.subnormal_scaled,
                unit="%",
                method="all recorded steps together; no interval",
            ),
        ),
        threshold=(
            f"supported if the 95 % interval of the share below 2^{FLOAT16.smallest} lies above "
            f"{percent(bound)}"
        ),
        meaning=_meaning(one, verdict),
        next_step=_next_step(one, verdict),
        caveats=CAVEATS,
        statement=without_network(HYPOTHESIS),
        evidence=("ridges", "networks"),
    )


def _estimate(name: str, mean: Mean) -> Estimate:
    value, low, high = (
        None if end is None else finite(100 * end) for end in (mean.value, mean.low, mean.high)
    )
    return Estimate(name, value, low, high, "%", method=mean.method)


def _meaning(one: Magnitudes, verdict: Verdict) -> str:
    if one.lost.value is None or one.subnormal.value is None:
        return (
            f"Whether gradients of {one.network} would underflow in float16 cannot be told: all "
            "recorded ones are exactly zero."
        )
    words = {
        Verdict.SUPPORTED: f"Gradients of {one.network} would underflow in float16",
        Verdict.CONTRADICTED: f"Few gradients of {one.network} would underflow in float16",
        Verdict.INCONCLUSIVE: (
            f"Whether gradients of {one.network} would underflow in float16 cannot be told"
        ),
    }
    return (
        f"{words[verdict]}: {percent(one.lost.value)} "
        f"{interval_text(one.lost.low, one.lost.high, percent)} of their elements are below its "
        f"smallest number, and {percent(one.subnormal.value)} "
        f"{interval_text(one.subnormal.low, one.subnormal.high, percent)} below its smallest "
        "normal one."
    )


def _next_step(one: Magnitudes, verdict: Verdict) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        return "Record histograms at more steps, or more seeds, to narrow the interval."
    if verdict is Verdict.CONTRADICTED:
        return (
            "Train in float16 with a torch.amp.GradScaler all the same, for the digits of the "
            "subnormal ones, and see whether accuracy holds."
        )
    return (
        f"Scale the loss, up to {_power(one.largest_loss_scale)} here (torch.amp.GradScaler finds "
        "its own scale), or train in bfloat16, whose range is that of float32."
    )


def _power(scale: float) -> str:
    return f"2^{math.log2(scale):.0f}" if math.isfinite(scale) else "any power of two"


def _figure(networks: list[str], shown: list[Magnitudes]) -> Figure:
    said = [
        Said(
            "{share} of the gradient elements of {network}",
            share=percent(one.lost.value),
            network=one.network,
        )
        for one in shown
        if one.lost.value is not None
    ]
    title = Said("All recorded gradients are zero")
    if said:
        title = Said("Too small for float16: {shares}", shares=listing(said))
    return Figure(
        key="ridges",
        title=title,
        caption=(
            "Each ridge is the histogram of the magnitudes at one depth (the input at the bottom): "
            "its height is the share of the elements in a bin, one power of two wide, at the first "
            "(dashed) and the last epoch with histograms (filled), exact zeros left out. On light "
            "grey float16 keeps fewer digits; on dark grey it keeps only 0 (below "
            f"2^{FLOAT16.smallest}) or infinity."
        ),
        alt=" ".join(_alt(one, kind) for one in shown for kind in HISTOGRAM_TABLES),
        draw=partial(draw_ridges, networks, shown),
        length=Length.FULL,
    )


def _alt(one: Magnitudes, kind: str) -> str:
    ridges = one.ridges[kind, one.epochs[-1]]
    if not ridges.size:
        return f"{one.network}: no {kind} other than zero."
    peaks = ridges.idxmax(axis=1)
    return (
        f"{one.network}, epoch {one.epochs[-1]}: most {kind} are near 2^{peaks.iloc[0]} at depth "
        f"{peaks.index[0]:.0f} and near 2^{peaks.iloc[-1]} at depth {peaks.index[-1]:.0f}."
    )


def _table(shown: list[Magnitudes]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": one.network,
                "steps": one.steps,
                "gradients exactly 0": one.zeros,
                "below 2^-24, of the others": one.lost.value,
                "below 2^-14": one.subnormal.value,
                "loss scale that fits": _power(one.largest_loss_scale),
                "below 2^-14 with it": one.subnormal_scaled,
                "activations beyond float16": one.overflowing,
            }
            for one in shown
        ]
    )


ANALYSIS = Analysis(
    key="magnitudes",
    title="Magnitudes by depth",
    question=(
        "How large are activations and gradients by depth, and would float16 lose the small "
        "gradients?"
    ),
    run=run,
    background=(
        "A 16-bit number format cannot hold numbers below some size: gradients that are "
        "smaller become zero, unless the loss is scaled up before backpropagation."
    ),
    order=120,
)
