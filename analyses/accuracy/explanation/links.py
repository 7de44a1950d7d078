"""Associations of changes of accuracy with quantities of the same epoch or the one before."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd

from analyses.accuracy.recalibration import RecalibrationSeries
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.statistics.associations_over_epochs import StrongestAssociation, strongest_association
from analyses.wording.phrases import plural
from analyses.wording.translatable import message

LAG_NAMES = {0: message("same epoch"), 1: message("epoch before")}
MIN_CHANGES = 6  # common to all runs: with fewer, steady learning explains almost everything


@dataclass(frozen=True)
class Link:
    """Association of a response by epoch with quantities by epoch, over the runs of a network.

    Fields:
        association: None if none could be computed, and `missing` says why.
        correlated: quantity and lag of each correlation.
        changes: number of responses of each run.
        runs: number of runs.
        missing: why there is no association; empty if there is one.
    """

    association: StrongestAssociation | None
    correlated: tuple[tuple[str, int], ...]
    changes: int
    runs: int
    missing: str = ""

    @property
    def strongest(self) -> tuple[str, int]:
        """Quantity and lag of the strongest correlation.

        Raises `ValueError` if there is none.
        """
        if self.association is None:
            raise ValueError(f"there is no association: {self.missing}")
        return self.correlated[self.association.strongest]


def real_changes(series: RecalibrationSeries) -> pd.Series:
    """The change of accuracy with re-estimated statistics into each epoch, as a fraction."""
    return pd.Series(np.diff(series.re_estimated.mean(axis=1)), index=series.epochs[1:])


def removed_movement(series: RecalibrationSeries) -> pd.Series:
    """Squared change of accuracy into each epoch less that with re-estimated statistics."""
    running, fresh = (
        np.diff(right.mean(axis=1)) for right in (series.running, series.re_estimated)
    )
    return pd.Series(running**2 - fresh**2, index=series.epochs[1:])


def link(quantities: Sequence[pd.DataFrame], responses: Sequence[pd.Series]) -> Link:
    """Associate the response into epoch e with quantities of epochs e and e - 1, over the runs.

    Args:
        quantities: one frame per run, one row per epoch (index), one column per quantity.
        responses: one series per run, indexed by epoch.

    Epochs that some run lacks are left out. So are quantities that are missing or not finite at
    some epoch of some run, or do not vary.
    """
    epochs = reduce(pd.Index.intersection, [one.index for one in responses])
    tables = [_lagged(frame, epochs) for frame in quantities]
    usable = [
        key for key in tables[0] if all(key in table and _varies(table[key]) for table in tables)
    ]
    targets = [one.loc[epochs].to_numpy(dtype=float) for one in responses]
    missing = ""
    if len(epochs) < MIN_CHANGES:
        missing = f"{plural(len(epochs), 'change')} between epochs, too few ({MIN_CHANGES} needed)"
    elif not usable:
        missing = "no quantity that varies was recorded at every epoch"
    elif not all(map(_varies, targets)):
        missing = "the accuracy does not change"
    association = None
    if not missing:
        stacked = [np.stack([table[key] for key in usable]) for table in tables]
        association = strongest_association(stacked, targets)
    return Link(association, tuple(usable), len(epochs), len(responses), missing)


def link_verdict(found: Link, alpha: float, strong: float) -> Verdict:
    """Supported if p is below `alpha`; contradicted if all intervals exclude `strong`.

    Inconclusive if no permutation of seeds or epochs could give such a p.
    """
    if found.association is None or found.association.smallest_p >= alpha:
        return Verdict.INCONCLUSIVE
    if found.association.p_value < alpha:
        return Verdict.SUPPORTED
    intervals = [found.association.interval(index) for index in range(len(found.correlated))]
    excluded = all(-strong < low and high < strong for low, high in intervals)
    return Verdict.CONTRADICTED if excluded else Verdict.INCONCLUSIVE


def correlations(network: str, found: Link) -> pd.DataFrame:
    """One row per correlation: network, quantity, epoch, Spearman rho."""
    columns = ["network", "quantity", "epoch", "Spearman rho"]
    if found.association is None:
        return pd.DataFrame(columns=columns)
    rows = [
        (network, quantity, LAG_NAMES[lag], rho)
        for (quantity, lag), rho in zip(
            found.correlated, found.association.correlations, strict=True
        )
    ]
    return pd.DataFrame(rows, columns=columns)


def _lagged(frame: pd.DataFrame, epochs: pd.Index) -> dict[tuple[str, int], Array]:
    return {
        (str(name), lag): values
        for lag in LAG_NAMES
        for name, values in zip(
            frame.columns, frame.reindex(epochs - lag).to_numpy(dtype=float).T, strict=True
        )
    }


def _varies(values: Array) -> bool:
    return bool(np.isfinite(values).all() and np.ptp(values) > 0)
