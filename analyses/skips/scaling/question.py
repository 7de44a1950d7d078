"""What happens to a trained residual network when its skips are scaled down?

This is an intervention: the weights stay as they are. That the network needs its skips is
contradicted if the accuracy lost without them is certainly small.
"""

import numpy as np
import pandas as pd

from analyses.reading.predictions import duplicate_images
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.skips.scaling.figures import scaling_figures
from analyses.skips.scaling.measure import TABLE, ScalingResponse, scaling_response
from analyses.statistics.estimates import as_factor, as_percent, estimate_of
from analyses.statistics.means import Mean
from analyses.wording.numbers import number, share_bound
from analyses.wording.phrases import slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said, message
from gradflow.runs.reading.run import Experiment, Run

SMALL_LOSS = 0.05
HYPOTHESIS = "Without its skips the trained network[ {}] loses accuracy."
LEAD = message("with the batch-norm statistics re-estimated, validation accuracy falls by {}")
MISSING = "not recorded at both ends"
TRAINED_WITH = (
    "The weights were trained with the skips, so this shows what the trained network relies on. "
    "The plain network shows what training without skips reaches."
)
ACCURACY_IS_FORWARD = (
    "At fixed weights the gradients cannot act on accuracy: both change because the skip does."
)
SAME_IMAGES = (
    "With fewer than three seeds the interval ignores that both accuracies are of the same images, "
    "so it is too wide; with three and more it covers other seeds."
)
SOURCES = (
    "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow networks "
    "(interventions on trained residual networks)",
    "Newcombe 1998, Interval estimation for the difference between independent proportions, "
    "method 10",
    "Wilson 1927, Probable inference, the law of succession, and statistical inference",
)


def run(experiment: Experiment, small_loss: float = SMALL_LOSS) -> AnalysisResult:
    """Compute accuracy and gradients with the skips multiplied by alpha; weights stay as they are.

    If the accuracy lost is less than `small_loss`, the skips are said not to matter.

    Raises `NotApplicableError` if no run recorded scaled skips.
    """
    networks = by_network(runs_with(experiment, TABLE, "scaled skips"))
    found = [scaling_response(name, runs) for name, runs in networks.items()]
    findings = tuple(_finding(one, networks[one.network], small_loss) for one in found)
    together = sentence([_told(one, small_loss) for one in found], LEAD)
    return AnalysisResult(
        summary=together,
        findings=findings,
        figures=scaling_figures(experiment.networks, found),
        tables=(Table("doses", "Accuracy and gradients by scope and scale", _table(found)),),
        method=(
            "At a checkpoint the skips of a scope (all, a stage, a block) are multiplied by "
            "alpha, no weight changed, and the validation images are predicted with running "
            "batch-norm statistics and with statistics re-estimated at this alpha on some training "
            "batches. The verdict "
            "rests on the re-estimated ones: the running ones belong to alpha = 1. Gradient ratio: "
            "norm at the first block's input over that at the last block's output. Wilson "
            "intervals for accuracies, Newcombe's for their difference; Student's over three and "
            "more seeds."
        ),
        sources=SOURCES,
        together={"without-skips": together},
    )


def _finding(one: ScalingResponse, runs: list[Run], small: float) -> Finding:
    verdict = _verdict(one.lost, small)
    copied = max(len(duplicate_images(run)) for run in runs)
    return Finding(
        key=slug(f"without-skips-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESIS, one.network),
        contradicted_by=f"A loss whose interval lies below {share_bound(small)} and reaches 0.",
        verdict=verdict,
        estimates=_estimates(one),
        threshold=(
            "supported if the 95 % interval of the accuracy lost from alpha = 1 to alpha = "
            f"{number(one.lowest)} lies above 0; contradicted if it reaches 0 and ends below "
            f"{share_bound(small)}"
        ),
        meaning=sentence([_told(one, small)], LEAD),
        next_step=(
            "Train networks with skips of each scale, to see whether training needs what the "
            "trained network relies on."
            if verdict is Verdict.SUPPORTED
            else "Hold out more validation images, or train three seeds and more."
        ),
        caveats=(
            TRAINED_WITH,
            ACCURACY_IS_FORWARD,
            SAME_IMAGES,
            *(
                (f"The counts include {copied} byte-identical copies of validation images.",)
                if copied
                else ()
            ),
        ),
        statement=without_network(HYPOTHESIS),
        evidence=("dose-response", "gradient-ratio", "doses"),
    )


def _verdict(lost: Mean | None, small: float) -> Verdict:
    if lost is None or lost.low is None or lost.high is None:
        return Verdict.INCONCLUSIVE
    if lost.low > 0:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if lost.high < small else Verdict.INCONCLUSIVE


def _told(one: ScalingResponse, small: float) -> NetworkStatement:
    verdict = _verdict(one.lost, small)
    clause = {
        Verdict.SUPPORTED: message("the trained network loses accuracy without its skips"),
        Verdict.CONTRADICTED: message("the trained network hardly needs its skips"),
        Verdict.INCONCLUSIVE: message(
            "it cannot be told whether the trained network needs its skips"
        ),
    }[verdict]
    lost = _lost("", one.lost)
    if lost.value is None:
        reason = "all of them together were not scaled down, or not with re-estimated statistics"
        return NetworkStatement(one.network, clause, detail=reason)
    return NetworkStatement(one.network, clause, _at(lost.words, one.lowest))


def _at(lost: str, alpha: float) -> str:
    return Said("{lost} at alpha = {alpha}", lost=lost, alpha=number(alpha))


def _lost(name: str, lost: Mean | None) -> Estimate:
    return estimate_of(name, lost, "percentage points", as_percent, MISSING)


def _estimates(one: ScalingResponse) -> tuple[Estimate, ...]:
    span = f"from alpha = 1 to alpha = {number(one.lowest)}"
    changed = f"factor by which the first-to-last gradient ratio changes {span}"
    return (
        _lost(f"accuracy lost {span}, re-estimated statistics", one.lost),
        _lost(f"accuracy lost {span}, running statistics", one.lost_running),
        estimate_of(changed, one.log_change, scale=as_factor, missing=MISSING),
    )


def _table(found: list[ScalingResponse]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "network": one.network,
                "scope": one.rows["scope"],
                "alpha": one.rows["scale"],
                "accuracy, re-estimated": one.rows["accuracy"],
                "95 % low": one.rows["low"],
                "95 % high": one.rows["high"],
                "accuracy, running": one.rows["running"],
                "gradient first / last": np.exp(one.rows["log_ratio"]),
            }
        )
        for one in found
    ]
    return pd.concat(parts, ignore_index=True)


ANALYSIS = Analysis(
    key="skip_scaling",
    title="Scaled skips",
    question="What becomes of a trained residual network when its skips are scaled down?",
    run=run,
    background=(
        "Multiplying the skips of a trained network by a factor from 1 down to 0, with its "
        "weights left as they are, shows how far its predictions rest on them."
    ),
    order=160,
)
