"""Activation statistics of a network by depth and epoch, and dead channels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health import dead_counts
from analyses.plotting.step_maps import medians_by_step
from analyses.reading.depth_bins import DepthBins, depth_bins
from analyses.reading.layer_gradients import pivot_by_step
from analyses.registry import NotApplicableError
from analyses.statistics.means import Mean, mean_over_steps
from gradflow.runs.reading.run import Run

# The signal by depth is that of layers of the first of these roles that the network has.
SIGNAL_ROLES = ("block", "normalization", "activation", "convolution", "linear")
_SHOWN = ("channel_squared_mean", "channel_variance", "std")


@dataclass(frozen=True)
class NetworkSignal:
    """The activations of all seeds of one network.

    Fields:
        network: its name.
        role: role of the layers in `profile` and `std`.
        profile: columns epoch, depth, channel_squared_mean, channel_variance: medians over steps.
        std: median standard deviation, rows depth, columns epoch.
        bins: the bins in which figures show the depths of `std`; each its own if they are few.
        zeros: columns depth, fraction: zeros after each ReLU, mean over the last epoch's steps.
        dead: columns epoch, fraction: dead channels among all channels of activation layers.
        dead_last: the same at the last epoch, with its interval; None without activation layers.
        by_step: the same standard deviation by the layers' names and steps; empty if the run was
            not recorded in its owner's loop.
        nonfinite: recorded values that were infinite or not a number, over all layers and steps.
    """

    network: str
    role: str
    profile: pd.DataFrame
    std: pd.DataFrame
    bins: DepthBins
    zeros: pd.DataFrame
    dead: pd.DataFrame
    dead_last: Mean | None
    nonfinite: int
    by_step: pd.DataFrame


def dead_fraction(run: Run) -> pd.Series:
    """Dead channels among all channels of the activation layers, indexed by (epoch, step)."""
    dead, channels = dead_counts(run)
    known = dead.notna().to_numpy() * np.nan_to_num(channels)
    total = pd.Series(known.sum(axis=1), index=dead.index)
    fractions: pd.Series = dead.sum(axis=1) / total.where(total > 0)
    return fractions.dropna()


def network_signal(network: str, runs: list[Run]) -> NetworkSignal:
    """Reduce the activations of the runs of one network.

    Raises `NotApplicableError` if the run has no table of layers.
    """
    if not len(runs[0].layers):
        raise NotApplicableError(
            f"{runs[0].name} has no table of layers, which tells depth and role of each"
        )
    roles = set(runs[0].layers["role"])
    role = next((role for role in SIGNAL_ROLES if role in roles), "")
    depth = runs[0].layers.drop_duplicates("layer").set_index("layer")["depth"]
    chosen = runs[0].layers.loc[runs[0].layers["role"] == role, "layer"]
    frame = pd.concat([_rows_of(one, chosen) for one in runs])
    frame = _with_depth(frame, depth)
    medians = frame.groupby(["epoch", "depth"])[list(_SHOWN)].median()
    std = medians["std"].unstack("epoch").sort_index()
    first_of_depth = {
        place: name for name, place in reversed(list(depth.loc[depth.index.isin(chosen)].items()))
    }
    dead = [dead_fraction(one) for one in runs]
    dead = [one for one in dead if len(one)]
    last = [one[one.index.get_level_values("epoch") == one.index[-1][0]] for one in dead]
    return NetworkSignal(
        network=network,
        role=role,
        profile=medians.reset_index(),
        std=std,
        bins=depth_bins([str(first_of_depth[place]) for place in std.index]),
        zeros=_zeros(runs, depth),
        dead=_dead_by_epoch(dead),
        dead_last=mean_over_steps([one.to_numpy() for one in last]) if last else None,
        nonfinite=sum(int(one.activations["nonfinite"].fillna(0).sum()) for one in runs),
        by_step=_by_step(runs) if all(one.is_own for one in runs) else pd.DataFrame(),
    )


def _by_step(runs: list[Run]) -> pd.DataFrame:
    names = runs[0].layers["layer"].drop_duplicates()
    tables = [pivot_by_step(one.activations, "std", names) for one in runs]
    medians = medians_by_step([one.dropna(axis="columns", how="all") for one in tables])
    return depth_bins([str(name) for name in medians.index]).rows(medians)


def _rows_of(run: Run, layers: pd.Series) -> pd.DataFrame:
    """The rows of `layers` among the activations, with what is shown of them."""
    rows = run.activations[["epoch", "layer", *_SHOWN]]
    return rows[rows["layer"].isin(layers)]


def _with_depth(rows: pd.DataFrame, depth: pd.Series) -> pd.DataFrame:
    """`rows` with the depth of each layer, and nan in place of what is infinite."""
    known = depth.reindex(rows["layer"]).to_numpy()
    return rows.assign(depth=known).replace([np.inf, -np.inf], np.nan)


def _zeros(runs: list[Run], depth: pd.Series) -> pd.DataFrame:
    layers = runs[0].layers
    relu = layers.loc[layers["type"].str.contains("ReLU"), "layer"]
    end = max(one.activations["epoch"].max() for one in runs)
    parts = [one.activations[["epoch", "layer", "zero_fraction"]] for one in runs]
    last = pd.concat([one[(one["epoch"] == end) & one["layer"].isin(relu)] for one in parts])
    by_depth = _with_depth(last, depth).groupby("depth")["zero_fraction"].mean().dropna()
    return by_depth.rename("fraction").reset_index()


def _dead_by_epoch(dead: list[pd.Series]) -> pd.DataFrame:
    if not dead:
        return pd.DataFrame({"epoch": [], "fraction": []})
    by_seed = [one.groupby(level="epoch").mean() for one in dead]
    mean = pd.concat(by_seed, axis=1).mean(axis=1)
    return mean.rename("fraction").rename_axis("epoch").reset_index()
