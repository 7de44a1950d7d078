"""How do activations travel through the depth, and do channels die on the way?

What would count against dying channels: that on a batch nearly every channel of the ReLU layers
passes something.
"""

import numpy as np
import pandas as pd

from analyses.frames import by_network, runs_with
from analyses.layer_signals import Signal, signal
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.signal_figures import signal_figures
from analyses.statistics import verdict_above
from analyses.wording import between, finite, percent, plural, slug
from gradflow.runs.reader import Experiment

DEAD = 0.10
BATCH_ONLY = (
    "A channel counts as dead at a step when it is zero on that whole batch; another batch may "
    "wake it, so this is an upper bound on the channels that are dead for good."
)


def run(experiment: Experiment, dead: float = DEAD) -> AnalysisResult:
    """Activation statistics by depth and epoch.

    `dead` is the share of dead channels from which a network is said to lose capacity: a tenth.

    Raises `NotApplicableError` where no run recorded activations.
    """
    networks = by_network(runs_with(experiment, "activations", "activations by layer"))
    signals = [signal(name, runs) for name, runs in networks.items()]
    findings = [_dead_finding(one, dead) for one in signals if one.dead_last is not None]
    findings += [_finite_finding(one) for one in signals]
    return AnalysisResult(
        summary=" ".join(finding.meaning for finding in findings),
        findings=tuple(findings),
        figures=signal_figures(experiment.networks, signals),
        tables=(
            Table("networks", "Activations of each network at its last epoch", _table(signals)),
        ),
        method=(
            "Statistics of each layer's output on the training batch of each recorded step, "
            "medians over the steps of an epoch. Channel squared mean: mean over channels of the "
            "squared mean over batch and positions; channel variance: mean over channels of the "
            "variance over these. Dead channels: exactly zero on the whole batch, over the "
            "channels of all activation layers; interval by moving-block bootstrap over the steps "
            "of the last epoch, or Student's over three and more seeds."
        ),
        sources=(
            "Brock et al. 2021, Characterizing signal propagation to close the performance gap in "
            "unnormalized ResNets",
            "He et al. 2015, Deep residual learning for image recognition, figure 7",
        ),
    )


def _dead_finding(one: Signal, bound: float) -> Finding:
    assert one.dead_last is not None
    mean = one.dead_last
    value = mean.value if mean.value is not None else float("nan")
    verdict = verdict_above(mean.low, mean.high, bound)
    words = {
        Verdict.SUPPORTED: "Channels of {} die",
        Verdict.CONTRADICTED: "Few channels of {} die",
        Verdict.INCONCLUSIVE: "Whether channels of {} die cannot be told",
    }[verdict].format(one.network)
    steps = {
        Verdict.SUPPORTED: "Lower the learning rate, or try a leaky ReLU, and see which wake up.",
        Verdict.CONTRADICTED: "Nothing to do here: the channels are in use.",
        Verdict.INCONCLUSIVE: "Record more steps of an epoch, or more seeds.",
    }
    return Finding(
        key=slug(f"dead-channels-{one.network}"),
        network=one.network,
        hypothesis=f"Channels of {one.network} die: over {percent(bound)} of them pass nothing.",
        contradicted_by=f"A share of dead channels whose interval lies below {percent(bound)}.",
        verdict=verdict,
        estimates=(
            Estimate(
                "dead channels of the activation layers at the last epoch",
                finite(100 * value),
                None if mean.low is None else 100 * mean.low,
                None if mean.high is None else 100 * mean.high,
                "%",
                method=mean.method,
            ),
        ),
        threshold=f"supported where the 95 % interval lies above {percent(bound)}",
        meaning=(
            f"{words}: at the last epoch {percent(value)} {between(mean.low, mean.high, percent)} "
            "of the channels after a nonlinearity are zero on a whole batch."
        ),
        next_step=steps[verdict],
        caveats=(BATCH_ONLY,),
    )


def _finite_finding(one: Signal) -> Finding:
    broken = one.nonfinite > 0
    said = f"{plural(one.nonfinite, 'value')} infinite or not a number" if broken else "all finite"
    return Finding(
        key=slug(f"finite-{one.network}"),
        network=one.network,
        hypothesis=f"All activations of {one.network} are finite.",
        contradicted_by="One recorded activation that is infinite or not a number.",
        verdict=Verdict.CONTRADICTED if broken else Verdict.SUPPORTED,
        estimates=(
            Estimate(
                "activations that were not finite",
                float(one.nonfinite),
                unit="values",
                method="counted over all recorded layers and steps; a count has no interval",
            ),
        ),
        threshold="contradicted by a single value",
        meaning=f"The recorded activations of {one.network} are {said}."
        if not broken
        else f"Among the recorded activations of {one.network} are {said}.",
        next_step=(
            "Find the first layer and step with such a value, and lower the learning rate."
            if broken
            else "Nothing to do here."
        ),
        caveats=("Only recorded steps and layers were looked at.",),
    )


def _table(signals: list[Signal]) -> pd.DataFrame:
    rows = []
    for one in signals:
        spread = one.spread.iloc[:, -1] if one.spread.size else pd.Series(dtype=float)
        low, high = (spread.min(), spread.max()) if len(spread) else (np.nan, np.nan)
        dead = one.dead_last.value if one.dead_last else None
        rows.append(
            {
                "network": one.network,
                "layers of role": one.role,
                "lowest std": low,
                "highest std": high,
                "zeros after ReLU": one.zeros["fraction"].mean() if len(one.zeros) else np.nan,
                "dead channels": np.nan if dead is None else dead,
                "values not finite": one.nonfinite,
            }
        )
    return pd.DataFrame(rows)


ANALYSIS = Analysis(
    key="signal_propagation",
    title="Signal propagation",
    question="How do activations travel through the depth, and do channels die on the way?",
    run=run,
)
