"""How do loss and accuracy develop?

Description only: `matched_comparison` tests which network is ahead.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.accuracy.learning_curves.reference import (
    OVERLAP_CAVEAT,
    has_reference_options,
    reference_curves,
)
from analyses.plotting import panels, theme
from analyses.reading.predictions import accuracy_by_epoch, correctness, predictions_of
from analyses.reading.runs import by_network, seed_label
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Table
from analyses.statistics.proportions import wilson_interval
from analyses.wording.numbers import percent
from analyses.wording.phrases import listing
from gradflow.runs.reading.run import Experiment, Run

CURVES = {
    "train_loss": "training loss (nats)",
    "val_loss": "validation loss (nats)",
    "train_accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
}
Curves = dict[str, list[pd.DataFrame]]
# The ratio of class sizes from which on the training command, too, shows the balanced accuracy.
_IMBALANCE = 1.5
SOURCES = (
    "Wilson 1927, Probable inference, the law of succession, and statistical inference",
    "He et al. 2015, Deep residual learning for image recognition, section 4.1",
)


def curves_of(run: Run) -> pd.DataFrame:
    """One row per epoch: epoch, the recorded columns of `CURVES`, and images if predictions exist.

    If the scalars have no validation accuracy, it is computed from the predictions.
    """
    epochs = run.epochs
    known = [name for name in CURVES if name in epochs.columns and epochs[name].notna().any()]
    frame = epochs[["epoch", *known]].astype(float)
    if not len(run.predictions):
        return frame
    right = accuracy_by_epoch(correctness(predictions_of(run)))
    if "val_accuracy" not in known:
        scores = right.rename(columns={"accuracy": "val_accuracy"})[["epoch", "val_accuracy"]]
        frame = frame.merge(scores.astype(float), on="epoch", how="outer")
    return frame.assign(images=float(right["images"].iloc[0]))


def mean_curves(runs: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean over the seeds by epoch, with Wilson's 95 % band of the mean validation accuracy.

    The band counts the images of one seed only: more seeds are not more images.
    """
    mean = pd.concat(runs).groupby("epoch", as_index=False).mean()
    if {"images", "val_accuracy"} <= set(mean.columns):
        bands = [
            wilson_interval(round(accuracy * images), int(images))
            if np.isfinite(accuracy * images)
            else (np.nan, np.nan)
            for accuracy, images in zip(mean["val_accuracy"], mean["images"], strict=True)
        ]
        mean["low"], mean["high"] = zip(*bands, strict=True)
    return mean


def new_bests(accuracies: pd.Series) -> pd.Series:
    """Whether each epoch is better than all epochs before; the first known epoch is."""
    before = accuracies.cummax().ffill().shift()
    better: pd.Series = accuracies.notna() & ~(accuracies <= before)
    return better


def balanced_accuracy(run: Run, epoch: int) -> float:
    """The mean of the classes' validation accuracies at `epoch`, if their sizes differ much.

    nan if the largest class has less than 1.5 times as many validation images as the smallest, so
    that the accuracy says the same, or if the epoch has no predictions.

    Source: Brodersen et al. 2010, The balanced accuracy and its posterior distribution.
    """
    rows = run.predictions
    rows = rows[rows["epoch"] == epoch] if len(rows) else rows
    if not len(rows):
        return float("nan")
    of_class = rows.assign(right=rows["prediction"] == rows["target"]).groupby("target")["right"]
    sizes = of_class.size()
    if sizes.max() < _IMBALANCE * sizes.min():
        return float("nan")
    return float(of_class.mean().mean())


def run(experiment: Experiment) -> AnalysisResult:
    """Loss and accuracy by epoch, network by network.

    Raises `NotApplicableError` if no run has any of the curves.
    """
    curves = {run.folder: curves_of(run) for run in experiment.runs}
    runs = [run for run in experiment.runs if set(CURVES) & set(curves[run.folder].columns)]
    if not runs:
        raise NotApplicableError(
            f"no run recorded any of {', '.join(CURVES)}: pass them to tracer.end_epoch"
        )
    grouped = {
        name: [curves[run.folder] for run in members] for name, members in by_network(runs).items()
    }
    references = {
        name: frame
        for name, members in by_network(runs).items()
        if all(map(has_reference_options, members))
        and (frame := reference_curves(name)) is not None
    }
    table = _table(runs, curves)
    summary = _description(table)
    return AnalysisResult(
        summary=summary,
        findings=(),
        figures=(_figure(experiment.networks, grouped, references, summary),),
        tables=(Table("epochs", "Best and last epoch of each run", table),),
        method=(
            "The curves are the scalars of each epoch, averaged over seeds. The band is Wilson's "
            "95 % interval of a proportion at the number of validation images. The best of several "
            "epochs is chosen on the images on which it is measured, so its accuracy is "
            "optimistic, the more so the more the curve jumps."
        ),
        sources=SOURCES,
    )


def _table(runs: list[Run], curves: dict[Path, pd.DataFrame]) -> pd.DataFrame:
    rows = []
    for one in runs:
        frame = curves[one.folder].reindex(columns=["epoch", *CURVES])
        last = frame.iloc[-1]
        row = {"network": one.network, "seed": seed_label(one), "epochs": int(last["epoch"])}
        row |= {f"last {label}": last[name] for name, label in CURVES.items()}
        known = frame.dropna(subset="val_accuracy")
        if len(known):
            best = known.loc[known["val_accuracy"].idxmax()]
            row |= {
                "best validation accuracy": best["val_accuracy"],
                "balanced accuracy then": balanced_accuracy(one, int(best["epoch"])),
                "best epoch": str(int(best["epoch"])),
                "new bests at": ", ".join(
                    f"{epoch:.0f}" for epoch in known["epoch"][new_bests(known["val_accuracy"])]
                ),
            }
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def _description(table: pd.DataFrame) -> str:
    """The accuracy, or else the loss, of each network after its last epoch."""
    for name, form in (("val_accuracy", percent), ("train_loss", "{:.3g} nats".format)):
        column = f"last {CURVES[name]}"
        if column in table.columns:
            means = table.groupby("network", sort=False)[column].mean().dropna()
            said = [f"{form(mean)} in {network}" for network, mean in means.items()]
            if said:
                what = CURVES[name].split(" (")[0]
                return f"After the last epoch the {what} is {listing(said)}."
    return "Loss and accuracy were recorded only as the curves below."


def _figure(
    networks: list[str], grouped: Curves, references: dict[str, pd.DataFrame], title: str
) -> Figure:
    seeds = max(len(runs) for runs in grouped.values())
    parts = [
        "Loss (nats) and accuracy by epoch, on the training images (left) and the validation "
        "images (right). One colour per network"
        + ("; thin lines are seeds, thick ones their mean." if seeds > 1 else "."),
        "Band: Wilson 95 % interval of validation accuracy. Rings: new bests of each run.",
    ]
    if references:
        parts.append(
            f"Grey: the reference's curves (dashed plain34, dotted resnet34). {OVERLAP_CAVEAT}"
        )
    return Figure(
        key="curves",
        title=title,
        caption=" ".join(parts),
        alt=f"Curves of loss and accuracy by epoch for {listing(list(grouped))}. {title}",
        draw=partial(_draw, networks, grouped, references),
    )


@theme.themed
def _draw(networks: list[str], grouped: Curves, references: dict[str, pd.DataFrame]) -> Drawing:
    names = [
        name for name in CURVES if any(name in one for runs in grouped.values() for one in runs)
    ]
    columns = 2 if len(names) > 1 else 1
    rows = -(-len(names) // columns)
    figure, axes = panels.subplots(rows, columns, 2.3 * rows + 0.4)
    palette = theme.colours(networks)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for network, runs in grouped.items():
            _draw_curves(axis, [one for one in runs if name in one], name, network, palette)
        for network, frame in references.items():
            style = "--" if network == "plain34" else ":"
            label = f"{network}, reference"
            axis.plot(frame["epoch"], frame[name], style, color=theme.GREY, lw=1.1, label=label)
        axis.set_ylabel(CURVES[name])
        if name.endswith("accuracy"):
            panels.percent_axis(axis)
        panels.epoch_axis(axis)
    panels.legend(figure, list(axes.flat))
    return figure


def _draw_curves(
    axis: Axes, runs: list[pd.DataFrame], name: str, network: str, palette: dict[str, str]
) -> None:
    if not runs:
        return
    colour = palette[network]
    for one in runs:
        if len(runs) > 1:
            axis.plot(one["epoch"], one[name], color=colour, linewidth=0.6, alpha=0.6)
        if name == "val_accuracy":
            best = one[new_bests(one[name])]
            style: dict[str, Any] = {"mfc": "white", "mec": colour, "mew": 0.9, "ms": 4.5}
            axis.plot(best["epoch"], best[name], "o", zorder=4, **style)
    mean = mean_curves(runs)
    if name != "val_accuracy":
        mean = mean.drop(columns=["low", "high"], errors="ignore")
    marker = "." if len(mean) < 3 else ""
    panels.curve(axis, mean, "epoch", name, color=colour, label=network, marker=marker)


ANALYSIS = Analysis(
    key="learning_curves",
    title="Learning curves",
    question="How do loss and accuracy develop?",
    run=run,
    background=(
        "Loss and accuracy after each pass over the training images (an epoch) show how far "
        "learning has come; accuracy on validation images, which are not trained on, shows "
        "what carries over to new ones."
    ),
    order=20,
)
