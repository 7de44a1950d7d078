"""The changes of validation accuracy from epoch to epoch, tested, and what goes with them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from analyses.epoch_quantities import epoch_quantities
from analyses.frames import accuracy_by_epoch, correctness, predictions_of, seed_name
from analyses.statistics import Array, Association, paired_change, strongest_association
from gradflow.runs.reader import Run

RATE = 0.05  # of false discoveries among the changes called real
LAGS = {0: "same epoch", 1: "epoch before"}


@dataclass(frozen=True)
class Jumps:
    """The changes of validation accuracy of all seeds of one network.

    Fields:
        network: its name.
        changes: one row a change: seed, epoch (the later one), change, low, high (95 %), gained,
            lost, p_value (McNemar), adjusted (Benjamini & Hochberg), real (adjusted within the
            rate).
        curves: one row an epoch: seed, epoch, accuracy, low, high (Wilson 95 %).
        images: validation images of the first seed.
        epochs: epochs of all seeds together.
        association: strongest correlation with the changes; None where none could be computed.
        candidates: quantity and lag of each correlation.
    """

    network: str
    changes: pd.DataFrame
    curves: pd.DataFrame
    images: int
    epochs: int
    association: Association | None
    candidates: tuple[tuple[str, int], ...]


def changes_of(run: Run) -> pd.DataFrame:
    """The changes of accuracy between consecutive recorded epochs, on the same images."""
    right = correctness(predictions_of(run))
    rows = []
    for before, after in zip(right.index[:-1], right.index[1:], strict=True):
        paired = paired_change(right.loc[before], right.loc[after])
        low, high = paired.interval()
        rows.append(
            {
                "seed": seed_name(run),
                "epoch": int(after),
                "change": paired.change,
                "low": low,
                "high": high,
                "gained": paired.gained,
                "lost": paired.lost,
                "p_value": paired.p_value,
            }
        )
    return pd.DataFrame(rows)


def jumps(network: str, runs: list[Run], rate: float = RATE) -> Jumps:
    """The changes of accuracy of the runs of one network, tested together."""
    parts = [changes_of(one) for one in runs]
    changes = pd.concat(parts, ignore_index=True)
    if len(changes):
        adjusted = false_discovery_control(changes["p_value"].to_numpy(), method="bh")
        changes = changes.assign(adjusted=adjusted, real=adjusted <= rate)
    scores = [accuracy_by_epoch(correctness(predictions_of(one))) for one in runs]
    curves = [score.assign(seed=seed_name(one)) for score, one in zip(scores, runs, strict=True)]
    association, candidates = associate(runs, parts)
    return Jumps(
        network=network,
        changes=changes,
        curves=pd.concat(curves, ignore_index=True),
        images=int(scores[0]["images"].iloc[0]),
        epochs=sum(map(len, scores)),
        association=association,
        candidates=candidates,
    )


def associate(
    runs: list[Run], changes: list[pd.DataFrame]
) -> tuple[Association | None, tuple[tuple[str, int], ...]]:
    """Rank correlations of the change into epoch e with quantities of epochs e and e - 1.

    The change from the first epoch to the second is left out, so that both lags see the same
    changes. None where no run has four changes left, or no quantity is known at all of them.
    """
    tables, responses = [], []
    for run, frame in zip(runs, changes, strict=True):
        if len(frame) < 5:
            continue
        quantities, epochs = epoch_quantities(run), frame["epoch"].to_numpy()[1:]
        lagged = {
            (name, lag): quantities[name].reindex(epochs - lag).to_numpy(dtype=float)
            for name in quantities.columns
            for lag in LAGS
        }
        tables.append(lagged)
        responses.append(frame["change"].to_numpy(dtype=float)[1:])
    usable = [
        key
        for key in (tables[0] if tables else ())
        if all(key in table and _varies(table[key]) for table in tables)
    ]
    if not usable or not all(map(_varies, responses)):
        return None, ()
    stacked = [np.stack([table[key] for key in usable]) for table in tables]
    return strongest_association(stacked, responses), tuple(usable)


def _varies(values: Array) -> bool:
    return bool(np.isfinite(values).all() and np.ptp(values) > 0)
