"""Reads tables of probes, for several analyses."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from numpy.typing import ArrayLike

from analyses.statistics.means import Mean, mean_over_steps


def last_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last epoch in a probe's table."""
    return frame[frame["epoch"] == frame["epoch"].max()]


def mean_over_epochs(series: Sequence[ArrayLike]) -> Mean:
    """`mean_over_steps` for series with one value per epoch: `method` says epochs, not steps."""
    mean = mean_over_steps(series)
    method = mean.method.replace("step", "epoch").replace("only 1 epochs", "only 1 epoch")
    return replace(mean, method=method)
