"""The tables of the gradient profile: by network, and by epoch with a verdict at each."""

import numpy as np
import pandas as pd

from analyses.gradients.profile.measure import (
    GradientProfile,
    factor_of_log,
    factor_over_depth,
    raw_ratio,
)
from analyses.health import Thresholds, dead_counts, is_dead, shattering_of
from analyses.result import Verdict
from analyses.wording.numbers import finite
from gradflow.runs.reading.run import Run


def classify_interval(
    low: float | None, high: float | None, vanishing: float, exploding: float
) -> str:
    """The class of an interval against two bounds: vanishing, exploding, healthy, or unclear."""
    if low is None or high is None:
        return "unclear"
    if high < vanishing:
        return "vanishing"
    if low > exploding:
        return "exploding"
    return "healthy" if low > vanishing and high < exploding else "unclear"


def network_table(profiles: list[GradientProfile]) -> pd.DataFrame:
    """One row a network: its factors, measured and expected."""
    rows = []
    for one in profiles:
        total, low, high = factor_over_depth(one)
        rows.append(
            {
                "network": one.network,
                "layers": one.depth,
                "factor per layer": factor_of_log(one.overall.value),
                "over all layers": total,
                "95 % low": low,
                "95 % high": high,
                "weights, over all layers": factor_over_depth(one, weights=True)[0],
                "first step": one.first,
                "theory": None if one.theory is None else one.theory.factor,
                "raw first / last": raw_ratio(one),
            }
        )
    return pd.DataFrame(rows)


def epoch_table(one: GradientProfile, runs: list[Run], bounds: Thresholds) -> pd.DataFrame:
    """One row an epoch: the factor per layer with its interval, and the class of the gradients.

    The class is dead or shattered if at least half of the runs are so, whatever the factor.
    """
    low, high = bounds.vanishing ** (1 / one.depth), bounds.exploding ** (1 / one.depth)
    flow = [
        classify_interval(finite(row.low), finite(row.high), low, high)
        for row in one.epochs.itertuples()
    ]
    frame = one.epochs.rename(
        columns={
            "factor": "factor per layer",
            "low": "95 % low",
            "high": "95 % high",
            "weight_factor": "weights, factor per layer",
        }
    )
    frame.insert(0, "network", one.network)
    for name, by_run in (
        ("dead", [_dead_epochs(run, bounds.dead) for run in runs]),
        ("shattered", [_shattered_epochs(run, bounds.shattered) for run in runs]),
    ):
        share = {epoch: np.mean([epoch in found for found in by_run]) for epoch in frame["epoch"]}
        flow = [
            name if share[epoch] >= 0.5 else answer
            for epoch, answer in zip(frame["epoch"], flow, strict=True)
        ]
    return frame.assign(**{"gradients are": flow})


def _dead_epochs(run: Run, share: float) -> set[int]:
    """Epochs with an activation layer that was dead in all recorded steps."""
    dead, total = dead_counts(run)
    smallest = dead.groupby(level="epoch").min()
    return {
        int(epoch)
        for epoch, counts in zip(smallest.index, smallest.to_numpy(), strict=True)
        if is_dead(counts, total, share).any()
    }


def _shattered_epochs(run: Run, bound: float) -> set[int]:
    """Epochs at whose end the gradient at the first recorded layer was shattered."""
    table = run.table("shattering")
    table = table[table["lag"] > 0]
    return {
        int(epoch)
        for epoch, rows in table.groupby("epoch")
        if shattering_of(run, rows, bound).verdict is Verdict.SUPPORTED
    }
