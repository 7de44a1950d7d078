"""What several analyses read from the tables of probes in the same way."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from numpy.typing import ArrayLike

from analyses.statistics.means import Mean, mean_over_steps


def last_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last epoch that a probe's table holds."""
    return frame[frame["epoch"] == frame["epoch"].max()]


def mean_over_epochs(series: Sequence[ArrayLike]) -> Mean:
    """`mean_over_steps` of what is measured once an epoch: its method speaks of epochs."""
    mean = mean_over_steps(series)
    method = mean.method.replace("step", "epoch").replace("only 1 epochs", "only 1 epoch")
    return replace(mean, method=method)
