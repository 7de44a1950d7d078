"""Accuracy and gradients of a network at each scale of its skips."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analyses.reading.probe_tables import last_epoch
from analyses.statistics.differences import difference_over_seeds, proportion_over_seeds
from analyses.statistics.means import Mean, mean_over_steps
from gradflow.runs.reading.run import Run

TABLE = "skip_scaling"
ALL_SKIPS = "all"
CORRECT_COLUMNS = {"re-estimated": "correct_recalibrated", "running": "correct"}


@dataclass(frozen=True)
class ScalingResponse:
    """One residual network at the last epoch at which its skips were scaled.

    Fields:
        network: its name.
        epoch: number of this epoch.
        images: number of validation images.
        rows: one row per (scope, scale), columns kind (all, stage or block), accuracy, low, high
            (re-estimated statistics), running, running_low, running_high, log_ratio (natural
            logarithm of first_gradient_norm / last_gradient_norm); averaged over seeds.
        lost: accuracy lost from scale 1 to the lowest scale of all skips, with re-estimated
            statistics; None if either is missing.
        lost_running: the same with running statistics.
        lowest: the lowest scale of all skips.
        log_change: logarithm of the gradient ratio at the lowest scale less that at scale 1.
    """

    network: str
    epoch: int
    images: int
    rows: pd.DataFrame
    lost: Mean | None
    lost_running: Mean | None
    lowest: float
    log_change: Mean | None

    def scopes(self, kind: str) -> list[str]:
        """The scopes of one kind, in the order in which they were recorded."""
        chosen = self.rows.loc[self.rows["kind"] == kind, "scope"]
        return list(dict.fromkeys(chosen))


def scaling_response(network: str, runs: list[Run]) -> ScalingResponse:
    """Reduce the scaled skips of the runs of one network; each run recorded some."""
    parts = [last_epoch(run.table(TABLE)).assign(seed=place) for place, run in enumerate(runs)]
    table = pd.concat(parts, ignore_index=True)
    table = table.drop_duplicates(["seed", "scope", "scale"], keep="last")
    table = table.assign(log_ratio=_log_ratio(table))
    blocks = {str(layer) for run in runs for layer in run.junctions["layer"].unique()}
    rows = [
        {
            "scope": scope,
            "kind": _kind(str(scope), blocks),
            "scale": scale,
            **_accuracies_and_ratio(group),
        }
        for (scope, scale), group in table.groupby(["scope", "scale"], sort=False)
    ]
    whole = table[table["scope"] == ALL_SKIPS]
    lowest = float(whole["scale"].min()) if len(whole) else 1.0
    ends = [_at(whole, scale) for scale in (1.0, lowest)]
    seeds = ends[0].index.intersection(ends[1].index)
    measured = len(seeds) > 0 and lowest < 1
    images = int(table["images"].iloc[0])
    lost: dict[str, Mean | None] = dict.fromkeys(CORRECT_COLUMNS)
    for name, column in CORRECT_COLUMNS.items():
        intact, scaled = (end.loc[seeds, column] for end in ends)
        if measured and intact.notna().all() and scaled.notna().all():
            lost[name] = difference_over_seeds(_counts(intact), _counts(scaled), images)
    changes = ends[1].loc[seeds, "log_ratio"] - ends[0].loc[seeds, "log_ratio"]
    return ScalingResponse(
        network=network,
        epoch=int(table["epoch"].max()),
        images=images,
        rows=pd.DataFrame(rows).sort_values(["scope", "scale"], kind="stable"),
        lost=lost["re-estimated"],
        lost_running=lost["running"],
        lowest=lowest,
        log_change=_over_seeds(changes) if measured else None,
    )


def _over_seeds(changes: pd.Series) -> Mean:
    """Mean with Student's interval from three seeds on; one batch a seed gives no other."""
    mean = mean_over_steps([[change] for change in changes])
    if mean.low is not None or mean.value is None:
        return mean
    return replace(mean, method="one batch a seed, too few seeds for an interval")


def _log_ratio(table: pd.DataFrame) -> pd.Series:
    first, last = (table[f"{end}_gradient_norm"].astype(float) for end in ("first", "last"))
    ratio = first / last.where(last > 0)
    return np.log(ratio.where((ratio > 0) & np.isfinite(ratio)))


def _kind(scope: str, blocks: set[str]) -> str:
    if scope == ALL_SKIPS:
        return ALL_SKIPS
    return "block" if scope in blocks or "." in scope else "stage"


def _accuracies_and_ratio(group: pd.DataFrame) -> dict[str, float]:
    images = int(group["images"].iloc[0])
    dose = {"log_ratio": float(group["log_ratio"].mean())}
    for name, columns in (
        ("re-estimated", ("accuracy", "low", "high")),
        ("running", ("running", "running_low", "running_high")),
    ):
        counts = group[CORRECT_COLUMNS[name]].dropna()
        mean = proportion_over_seeds(_counts(counts), images) if len(counts) else None
        values = (mean.value, mean.low, mean.high) if mean else (None, None, None)
        for column, value in zip(columns, values, strict=True):
            dose[column] = float("nan") if value is None else value
    return dose


def _at(whole: pd.DataFrame, scale: float) -> pd.DataFrame:
    """The rows at one scale, indexed by seed."""
    return whole[whole["scale"] == scale].set_index("seed")


def _counts(column: pd.Series) -> list[int]:
    return [int(count) for count in column]
