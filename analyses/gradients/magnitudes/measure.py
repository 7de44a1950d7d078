"""The magnitudes of a network's activations and gradients, and what float16 would keep."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.reading.layer_gradients import weighted_layers
from analyses.statistics.means import Mean, mean_over_steps
from gradflow.runs.reading.magnitudes import (
    FLOAT16,
    bins,
    element_counts,
    fraction_above_largest,
    fraction_below_normal,
    fraction_below_smallest,
    fraction_lost,
    loss_scale,
    nonzero_counts,
)
from gradflow.runs.reading.run import Run

HISTOGRAM_TABLES = {"activations": "activation_histograms", "gradients": "gradient_histograms"}


@dataclass(frozen=True)
class Magnitudes:
    """Magnitudes at the layers with weights, over all seeds of one network.

    Shares leave out elements that are exactly zero, because every format keeps these.

    Fields:
        network: its name.
        epochs: the first and the last epoch with histograms, or the only one.
        ridges: by kind, "activations" or "gradients", and epoch of `epochs`: the share of the
            elements in each bin, rows depth, columns exponent; rows add up to 1, but for the
            elements below 2^-126 and those not finite.
        zeros: share of exact zeros among all elements of the gradients.
        lost: share of gradient elements below float16's smallest number, mean over the steps.
        subnormal: the same below its smallest normal number, those that are lost included.
        largest_loss_scale: the largest power of two by which the loss can be multiplied so that
            no recorded gradient of any layer leaves float16's range; NaN without gradients.
        subnormal_scaled: `subnormal` of the gradients multiplied by it, all steps together; None
            without gradients.
        overflowing: share of activation elements beyond float16's range, all steps together.
        steps: recorded steps with histograms, over all seeds.
    """

    network: str
    epochs: tuple[int, ...]
    ridges: dict[tuple[str, int], pd.DataFrame]
    zeros: float
    lost: Mean
    subnormal: Mean
    largest_loss_scale: float
    subnormal_scaled: float | None
    overflowing: float
    steps: int


def magnitudes(network: str, runs: list[Run]) -> Magnitudes:
    """Reduce the histograms of the runs of one network; each run has some."""
    depth = _depths(runs)
    frames = {
        kind: [_known(run.table(table), depth) for run in runs]
        for kind, table in HISTOGRAM_TABLES.items()
    }
    gradients = pd.concat(frames["gradients"], ignore_index=True)
    scale = loss_scale(pd.concat([run.gradient_histograms for run in runs], ignore_index=True))
    recorded = sorted(set(gradients["epoch"].astype(int)))
    epochs = tuple(dict.fromkeys((recorded[0], recorded[-1])))
    by_step = [_shares_by_step(frame) for frame in frames["gradients"]]
    return Magnitudes(
        network=network,
        epochs=epochs,
        ridges={
            (kind, epoch): _ridges([one[one["epoch"] == epoch] for one in parts])
            for kind, parts in frames.items()
            for epoch in epochs
        },
        zeros=float(gradients["zeros"].sum() / element_counts(gradients).sum()),
        lost=mean_over_steps([one["lost"].to_numpy() for one in by_step]),
        subnormal=mean_over_steps([one["subnormal"].to_numpy() for one in by_step]),
        largest_loss_scale=scale,
        subnormal_scaled=_share(gradients, fraction_lost(gradients, scale))
        if np.isfinite(scale)
        else None,
        overflowing=_overflowing(pd.concat(frames["activations"], ignore_index=True)),
        steps=sum(map(len, by_step)),
    )


def _depths(runs: list[Run]) -> pd.Series:
    """Depth by layer, of the layers with weights; of all layers if there are no such layers."""
    layers = runs[0].layers.drop_duplicates("layer")
    chosen = weighted_layers(layers)
    depth: pd.Series = (chosen if len(chosen) else layers).set_index("layer")["depth"]
    return depth


def _known(frame: pd.DataFrame, depth: pd.Series) -> pd.DataFrame:
    """The rows of layers whose depth is known; all rows, at depth 0, if no depth is known."""
    if not len(depth):
        return frame.assign(depth=0)
    own = frame[frame["layer"].isin(depth.index)]
    return own.assign(depth=own["layer"].map(depth))


def _shares_by_step(frame: pd.DataFrame) -> pd.DataFrame:
    """Shares of the elements that are not zero: columns lost, subnormal; one row a step."""
    counts = pd.DataFrame(
        {
            "epoch": frame["epoch"],
            "step": frame["step"],
            "lost": fraction_below_smallest(frame, FLOAT16) * element_counts(frame),
            "subnormal": fraction_below_normal(frame, FLOAT16) * element_counts(frame),
            "nonzero": nonzero_counts(frame),
        }
    )
    summed = counts.groupby(["epoch", "step"]).sum()
    present = summed["nonzero"].where(summed["nonzero"] > 0)
    return summed[["lost", "subnormal"]].div(present, axis=0)


def _share(frame: pd.DataFrame, fractions: pd.Series) -> float | None:
    """Share of the nonzero elements of all rows, from `fractions` of all elements of each row."""
    present = nonzero_counts(frame).sum()
    return float((fractions * element_counts(frame)).sum() / present) if present else None


def _overflowing(frame: pd.DataFrame) -> float:
    return _share(frame, fraction_above_largest(frame, FLOAT16)) or 0.0


def _ridges(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The share of the elements other than zero in each bin: rows depth, columns exponent."""
    frame = pd.concat(frames, ignore_index=True)
    long = bins(frame)
    depth = frame.drop_duplicates("layer").set_index("layer")["depth"]
    counts = long.assign(depth=long["layer"].map(depth)).groupby(["depth", "exponent"])["count"]
    table = counts.sum().unstack("exponent", fill_value=0).sort_index()
    total = nonzero_counts(frame).groupby(frame["depth"]).sum().reindex(table.index)
    full = range(int(table.columns.min()), int(table.columns.max()) + 1) if table.size else []
    shares: pd.DataFrame = table.reindex(columns=list(full), fill_value=0).div(total, axis=0)
    return shares
