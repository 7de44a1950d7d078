"""How do activations travel through the depth, and how many channels are dead?

Description only: the analysis `health_check` tests for dead layers and non-finite values.
"""

import numpy as np
import pandas as pd

from analyses.gradients.signals.figures import signal_figures
from analyses.gradients.signals.measure import NetworkSignal, network_signal
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Table
from analyses.statistics.estimates import as_percent, estimate_of
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from gradflow.runs.reading.run import Experiment


def run(experiment: Experiment) -> AnalysisResult:
    """Show activation statistics by depth and epoch.

    Raises `NotApplicableError` if no run recorded activations.
    """
    networks = by_network(runs_with(experiment, "activations", "activations by layer"))
    signals = [network_signal(name, runs) for name, runs in networks.items()]
    return AnalysisResult(
        summary=_summary(signals),
        findings=(),
        figures=signal_figures(experiment.networks, signals),
        tables=(
            Table("networks", "Activations of each network at its last epoch", _table(signals)),
        ),
        method=(
            "Statistics of each layer's output on the training batch of each recorded step, "
            "medians over the steps of an epoch. Channel squared mean: mean over channels of the "
            "squared mean over batch and positions; channel variance: mean over channels of the "
            "variance over these. Dead channels: exactly zero on the whole batch, over the "
            "channels of all activation layers; another batch may activate them, so this is an "
            "upper bound for channels that are always dead. Interval: moving-block bootstrap over "
            "the steps of the last epoch, or Student's over three and more seeds."
        ),
        sources=(
            "Brock et al. 2021, Characterizing signal propagation to close the performance gap in "
            "unnormalized ResNets",
            "He et al. 2015, Deep residual learning for image recognition, figure 7",
        ),
    )


def _summary(signals: list[NetworkSignal]) -> str:
    """The spread of the signals over the depth, and the share of dead channels."""
    ends = [
        f"from {number(spread.iloc[0])} to {number(spread.iloc[-1])} in {one.network}"
        for one in signals
        if len(spread := _last_std(one).dropna())
    ]
    dead = [
        f"{share.words} in {one.network}"
        for one in signals
        if (share := _dead(one)).value is not None
    ]
    said = []
    if ends:
        said.append(
            "At the last epoch the standard deviation of the activations goes, from the first "
            f"layer to the last, {listing(ends)}."
        )
    if dead:
        said.append(f"The share of dead channels in activation layers is {listing(dead)}.")
    return " ".join(said) or "No finite activation was recorded."


def _last_std(one: NetworkSignal) -> pd.Series:
    """Standard deviation by depth at the last epoch."""
    return one.std.iloc[:, -1] if one.std.size else pd.Series(dtype=float)


def _dead(one: NetworkSignal) -> Estimate:
    return estimate_of("dead channels", one.dead_last, "%", as_percent, "not recorded")


def _table(signals: list[NetworkSignal]) -> pd.DataFrame:
    rows = []
    for one in signals:
        spread, dead = _last_std(one), _dead(one)
        rows.append(
            {
                "network": one.network,
                "layers of role": one.role,
                "lowest std": spread.min(),
                "highest std": spread.max(),
                "zeros after ReLU": one.zeros["fraction"].mean() if len(one.zeros) else np.nan,
                "dead channels (%)": dead.value,
                "95 % low": dead.low,
                "95 % high": dead.high,
                "values not finite": one.nonfinite,
            }
        )
    return pd.DataFrame(rows)


ANALYSIS = Analysis(
    key="signal_propagation",
    title="Signal propagation",
    question="How do activations travel through the depth, and how many channels are dead?",
    run=run,
    background=(
        "On the way forward each layer changes the mean and variance of its activations; a "
        "channel that is zero on every input passes no signal forward and no gradient back."
    ),
    order=110,
)
