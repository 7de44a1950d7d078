"""The gradient of a network by path length: shares, effective path lengths, and all paths."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from analyses.reading.probe_tables import mean_over_epochs
from analyses.statistics import Array
from analyses.statistics.basics.distributions import binomial_shares
from analyses.statistics.means import Mean
from gradflow.runs.reading.run import Run

TABLE = "path_lengths"

Frame = TypeVar("Frame", pd.DataFrame, pd.Series)


@dataclass(frozen=True)
class PathLengths:
    """The paths through the residual blocks of all seeds of one network.

    Fields:
        network: its name.
        blocks: n, the number of residual blocks.
        all_paths: share of all 2^n paths by length, shape [n + 1]: Binomial(n, 1/2).
        shares: the gradient's share by length, averaged over seeds; rows length, columns epoch.
        norms: |g_k| over the sum of all |g_k|, averaged and arranged as `shares`.
        epochs: columns epoch, by share, by norm: effective path lengths, averaged over seeds.
        short: share of paths shorter than n/2, over epochs.
        by_share: mean length, weighted by share.
        by_norm: mean length, weighted by |g_k| as in Veit et al.
        skips_only: share of length 0.
        sampled: whether paths were drawn at random, and not all computed.
    """

    network: str
    blocks: int
    all_paths: Array
    shares: pd.DataFrame
    norms: pd.DataFrame
    epochs: pd.DataFrame
    short: Mean
    by_share: Mean
    by_norm: Mean
    skips_only: Mean
    sampled: bool


def by_length(run: Run, quantity: str) -> pd.DataFrame:
    """`quantity` of the table of path lengths: rows length, columns epoch."""
    rows = run.table(TABLE).drop_duplicates(["epoch", "length"], keep="last")
    wide = rows.set_index(["length", "epoch"])[quantity].astype(float).unstack("epoch")
    kept: pd.DataFrame = wide.replace([np.inf, -np.inf], np.nan).sort_index()
    return kept


def weighted_length(weights: pd.DataFrame) -> pd.Series:
    """Mean path length at each epoch, the lengths weighted by the columns of `weights`.

    NaN at epochs with a missing weight, or if the weights add up to 0.
    """
    total = weights.sum(skipna=False)
    lengths = weights.mul(weights.index.to_numpy(dtype=float), axis=0).sum(skipna=False)
    means: pd.Series = lengths / total.where(total != 0)
    return means


def short_share(shares: pd.DataFrame) -> pd.Series:
    """Share of paths shorter than half the blocks, at each epoch."""
    blocks = float(shares.index.max())
    short: pd.Series = shares[shares.index < blocks / 2].sum(skipna=False)
    return short


def skips_only(run: Run) -> pd.Series:
    """The share of the gradient that came along skips only, by epoch; empty if not recorded."""
    rows = run.table(TABLE)
    shares: pd.Series = rows[rows["length"] == 0].set_index("epoch")["share"].astype(float)
    return shares


def path_lengths(network: str, runs: list[Run]) -> PathLengths:
    """Reduce the path lengths of the runs of one network; each run recorded some."""
    shares = [by_length(run, "share") for run in runs]
    norms = [
        norm / norm.sum(skipna=False) for norm in (by_length(r, "gradient_norm") for r in runs)
    ]
    blocks = int(max(share.index.max() for share in shares))
    lengths = {
        "by share": [weighted_length(share) for share in shares],
        "by norm": [weighted_length(norm) for norm in norms],
    }
    epochs = pd.DataFrame({name: _over_seeds(one) for name, one in lengths.items()})
    return PathLengths(
        network=network,
        blocks=blocks,
        all_paths=binomial_shares(blocks, 0.5),
        shares=_over_seeds(shares),
        norms=_over_seeds(norms),
        epochs=epochs.rename_axis("epoch").reset_index(),
        short=mean_over_epochs([short_share(share) for share in shares]),
        by_share=mean_over_epochs(lengths["by share"]),
        by_norm=mean_over_epochs(lengths["by norm"]),
        skips_only=mean_over_epochs([skips_only(run) for run in runs]),
        sampled=any(run.table(TABLE)["draws"].notna().any() for run in runs),
    )


def _over_seeds(parts: list[Frame]) -> Frame:
    """The mean over seeds, entry by entry; NaN if no seed has the entry."""
    together: Frame = pd.concat(parts).groupby(level=0).mean()
    return together
