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
    frame = pd.concat([one.activations for one in runs])
    frame = frame.assign(depth=frame["layer"].map(depth)).replace([np.inf, -np.inf], np.nan)
    medians = (
        frame[frame["layer"].isin(chosen)]
        .groupby(["epoch", "depth"])[["channel_squared_mean", "channel_variance", "std"]]
        .median()
    )
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
        zeros=_zeros(frame, runs[0].layers),
        dead=_dead_by_epoch(dead),
        dead_last=mean_over_steps([one.to_numpy() for one in last]) if last else None,
        nonfinite=int(frame["nonfinite"].fillna(0).sum()),
        by_step=_by_step(runs) if all(one.is_own for one in runs) else pd.DataFrame(),
    )


def _by_step(runs: list[Run]) -> pd.DataFrame:
    names = runs[0].layers["layer"].drop_duplicates()
    tables = [pivot_by_step(one.activations, "std", names) for one in runs]
    medians = medians_by_step([one.dropna(axis="columns", how="all") for one in tables])
    return depth_bins([str(name) for name in medians.index]).rows(medians)


def _zeros(frame: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    relu = layers.loc[layers["type"].str.contains("ReLU"), "layer"]
    last = frame[(frame["epoch"] == frame["epoch"].max()) & frame["layer"].isin(relu)]
    by_depth = last.groupby("depth")["zero_fraction"].mean().dropna()
    return by_depth.rename("fraction").reset_index()


def _dead_by_epoch(dead: list[pd.Series]) -> pd.DataFrame:
    if not dead:
        return pd.DataFrame({"epoch": [], "fraction": []})
    by_seed = [one.groupby(level="epoch").mean() for one in dead]
    mean = pd.concat(by_seed, axis=1).mean(axis=1)
    return mean.rename("fraction").rename_axis("epoch").reset_index()
