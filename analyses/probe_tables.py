"""What several analyses read from the tables of probes in the same way."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from numpy.typing import ArrayLike

from analyses.statistics import Mean, mean_over_steps
from gradflow.runs.reader import Run


def last_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last epoch that a probe's table holds."""
    return frame[frame["epoch"] == frame["epoch"].max()]


def epochs_of(runs: list[Run], table: str) -> list[int]:
    """The epochs at which every one of `runs` recorded rows in `table`, in order."""
    common = set.intersection(*(set(run.table(table)["epoch"]) for run in runs))
    return sorted(int(epoch) for epoch in common)


def mean_over_epochs(series: Sequence[ArrayLike]) -> Mean:
    """`mean_over_steps` of what is measured once an epoch: its method speaks of epochs."""
    mean = mean_over_steps(series)
    return replace(mean, method=mean.method.replace("step", "epoch"))
