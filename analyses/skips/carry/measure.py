"""The shares of the gradient and of the variance at each residual addition of a network."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.reading.depth_bins import DepthBins, depth_bins
from analyses.reading.layer_gradients import pivot_by_step
from analyses.reading.probe_tables import mean_over_epochs
from analyses.skips.path_lengths import skips_only
from analyses.statistics import Array
from analyses.statistics.means import Mean, mean_over_steps
from analyses.statistics.theory import branch_share, centred_branch_share
from gradflow.runs.reading.run import Run

SHARES_ADD_UP = (
    "Shares are projections on the whole gradient: skip and branch add up to 1, and if they oppose "
    "each other one exceeds 1 and the other is negative."
)


@dataclass(frozen=True)
class SkipShares:
    """The residual additions of all seeds of one network.

    Fields:
        network: its name.
        blocks: columns layer, skip_type, in order of execution.
        by_epoch: median share of the skip, rows blocks numbered from 1, columns epoch.
        mean: share averaged over blocks and steps.
        identity, projection, gated, mixed: the same for the skips of one type; None without any.
        first: share at the first block.
        branches: expected number of branches passed, the sum of the branches' shares.
        skips_only: exact share that came along skips only; None if no path lengths were measured.
        product: product of the mean shares of all blocks: an approximation of `skips_only`.
        variance: columns block, measured, centred, uncentred: the branch's share of the variance
            at step 0, measured and after De & Smith; empty if step 0 was not recorded.
    """

    network: str
    blocks: pd.DataFrame
    by_epoch: pd.DataFrame
    mean: Mean
    identity: Mean | None
    projection: Mean | None
    gated: Mean | None
    mixed: Mean | None
    first: Mean
    branches: Mean
    skips_only: Mean | None
    product: float
    variance: pd.DataFrame

    @property
    def bins(self) -> DepthBins:
        """The bins in which figures show the blocks; each its own if they are few."""
        return depth_bins(list(self.blocks["layer"]))


def additions_in_order(run: Run) -> pd.DataFrame:
    """The residual additions of `run`, columns layer and skip_type, in order of execution."""
    blocks = run.junctions.drop_duplicates("layer")[["layer", "skip_type"]]
    order = {name: place for place, name in enumerate(run.layers["layer"])}
    # Further additions of a block (name+2) follow its first one.
    place = blocks["layer"].str.replace(r"\+\d+$", "", regex=True).map(order)
    # Blocks that the table of layers lacks come last, in recorded order.
    ranked: pd.DataFrame = blocks.assign(place=place).sort_values("place", kind="stable")
    return ranked[["layer", "skip_type"]].reset_index(drop=True)


def shares_by_step(run: Run, blocks: pd.DataFrame) -> pd.DataFrame:
    """The skip's share of the gradient: one row per (epoch, step), one column a block."""
    return pivot_by_step(run.junctions, "skip_share", blocks["layer"]).replace(
        [np.inf, -np.inf], np.nan
    )


def expected_branch_share(skip_types: list[str]) -> pd.DataFrame:
    """The branch's share of the variance at initialization, one row a block.

    Columns uncentred and centred: `branch_share` and `centred_branch_share` (De & Smith 2020), for
    the number of blocks since the last projection.
    """
    since, rows = 0, []
    for block, skip_type in enumerate(skip_types, start=1):
        since = 0 if skip_type == "projection" else since
        centred, uncentred = centred_branch_share(since), branch_share(since)
        rows.append({"block": block, "centred": centred, "uncentred": uncentred})
        since += 1
    return pd.DataFrame(rows)


def skip_shares(network: str, runs: list[Run]) -> SkipShares:
    """Reduce the residual additions of the runs of one network."""
    blocks = additions_in_order(runs[0])
    tables = [shares_by_step(one, blocks) for one in runs]
    pooled = pd.concat(tables)
    by_epoch = pooled.groupby(level="epoch").median().T
    by_epoch.index = pd.RangeIndex(1, len(blocks) + 1)
    kinds = {
        kind: _mean_over_blocks(
            [table.loc[:, (blocks["skip_type"] == kind).to_numpy()] for table in tables]
        )
        for kind in ("identity", "projection", "gated", "mixed")
        if (blocks["skip_type"] == kind).any()
    }
    return SkipShares(
        network=network,
        blocks=blocks,
        by_epoch=by_epoch,
        mean=_mean_over_blocks(tables),
        identity=kinds.get("identity"),
        projection=kinds.get("projection"),
        gated=kinds.get("gated"),
        mixed=kinds.get("mixed"),
        first=_mean_over_blocks([table.iloc[:, :1] for table in tables]),
        branches=mean_over_steps([_sum_over_blocks(1 - table) for table in tables]),
        skips_only=_skips_only(runs),
        product=float(np.prod(pooled.mean().to_numpy())),
        variance=_variance(runs, blocks),
    )


def _skips_only(runs: list[Run]) -> Mean | None:
    series = [one.to_numpy() for run in runs if len(one := skips_only(run))]
    return mean_over_epochs(series) if series else None


def _mean_over_blocks(tables: list[pd.DataFrame]) -> Mean:
    return mean_over_steps([table.mean(axis=1).to_numpy() for table in tables])


def _sum_over_blocks(table: pd.DataFrame) -> Array:
    """Sum over the blocks at each step; NaN at steps where a block is missing."""
    total: Array = table.sum(axis=1, skipna=False).to_numpy(dtype=float)
    return total


def _variance(runs: list[Run], blocks: pd.DataFrame) -> pd.DataFrame:
    starts = []
    for one in runs:
        start = one.junctions[one.junctions["step"] == 0].drop_duplicates("layer")
        start = start.set_index("layer").reindex(blocks["layer"])
        total = start["skip_variance"] + start["branch_variance"]
        starts.append((start["branch_variance"] / total.where(total > 0)).to_numpy(dtype=float))
    measured = pd.DataFrame(starts).mean().to_numpy()
    expected = expected_branch_share(list(blocks["skip_type"]))
    return expected.assign(measured=measured).dropna(subset="measured")
