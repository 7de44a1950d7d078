"""Tests the changes of validation accuracy from epoch to epoch."""

from dataclasses import dataclass

import pandas as pd

from analyses.reading.once import once_per_run
from analyses.reading.predictions import accuracy_by_epoch, right_images
from analyses.reading.runs import seed_label
from analyses.statistics.basics.ranks import false_discovery_adjusted
from analyses.statistics.proportions import paired_change
from gradflow.runs.reading.run import Run

FALSE_DISCOVERY_RATE = 0.05  # of false discoveries among the changes called real


@dataclass(frozen=True)
class NetworkChanges:
    """The changes of validation accuracy of all seeds of one network.

    Fields:
        network: its name.
        changes: one row per change: seed, epoch (the later one), change, low, high (95 %), gained,
            lost, p_value (McNemar), adjusted (Benjamini & Hochberg), real (adjusted within the
            false discovery rate).
        curves: one row per epoch: seed, epoch, accuracy, low, high (Wilson 95 %).
        images: number of validation images of the first seed.
    """

    network: str
    changes: pd.DataFrame
    curves: pd.DataFrame
    images: int


@once_per_run
def changes_of_run(run: Run, table: str = "predictions") -> pd.DataFrame:
    """The changes of accuracy between consecutive recorded epochs, on the same images.

    `table` is predictions, or recalibration for re-estimated batch-norm statistics.
    """
    right = right_images(run, table)
    by_epoch = right.to_numpy()
    rows = []
    for after, *pair in zip(right.index[1:], by_epoch[:-1], by_epoch[1:], strict=True):
        paired = paired_change(*pair)
        low, high = paired.interval()
        rows.append(
            {
                "seed": seed_label(run),
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


def changes_of_network(
    network: str,
    runs: list[Run],
    false_discovery_rate: float = FALSE_DISCOVERY_RATE,
    table: str = "predictions",
) -> NetworkChanges:
    """The changes of accuracy of the runs of one network, tested together."""
    parts = [changes_of_run(one, table) for one in runs]
    changes = pd.concat(parts, ignore_index=True)
    if len(changes):
        adjusted = false_discovery_adjusted(changes["p_value"])
        changes = changes.assign(adjusted=adjusted, real=adjusted <= false_discovery_rate)
    scores = [accuracy_by_epoch(right_images(one, table)) for one in runs]
    curves = [score.assign(seed=seed_label(one)) for score, one in zip(scores, runs, strict=True)]
    return NetworkChanges(
        network=network,
        changes=changes,
        curves=pd.concat(curves, ignore_index=True),
        images=int(scores[0]["images"].iloc[0]),
    )
