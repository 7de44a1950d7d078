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
from analyses.reading.balance import SOURCES as SOURCES_ON_BALANCE
from analyses.reading.balance import balanced_by_epoch, balanced_words
from analyses.reading.predictions import accuracy_by_epoch, right_images
from analyses.reading.runs import by_network, seed_label
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Table
from analyses.statistics.proportions import wilson_interval
from analyses.wording.numbers import percent, with_unit
from analyses.wording.phrases import listing
from analyses.wording.translatable import Joined, Numeral, Said, message
from gradflow.runs.reading.run import Experiment, Run

CURVES = {
    "train_loss": "training loss (nats)",
    "val_loss": "validation loss (nats)",
    "train_accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
}
Curves = dict[str, list[pd.DataFrame]]
SOURCES = (
    "Wilson 1927, Probable inference, the law of succession, and statistical inference",
    "He et al. 2015, Deep residual learning for image recognition, section 4.1",
)


def curves_of(run: Run) -> pd.DataFrame:
    """One row per epoch: epoch, the recorded columns of `CURVES`, and images if predictions exist.

    If the scalars have no validation accuracy, it is computed from the predictions; so is the
    balanced accuracy, with its interval, if the classes differ in size.
    """
    epochs = run.epochs
    known = [name for name in CURVES if name in epochs.columns and epochs[name].notna().any()]
    frame = epochs[["epoch", *known]].astype(float)
    if not len(run.predictions):
        return frame
    right = accuracy_by_epoch(right_images(run))
    if "val_accuracy" not in known:
        scores = right.rename(columns={"accuracy": "val_accuracy"})[["epoch", "val_accuracy"]]
        frame = frame.merge(scores.astype(float), on="epoch", how="outer")
    frame = frame.assign(images=float(right["images"].iloc[0]))
    balanced = balanced_by_epoch(run)
    return frame.merge(balanced, on="epoch", how="left") if len(balanced) else frame


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
    balanced = {name: balanced_words(members) for name, members in by_network(runs).items()}
    balanced = {name: words for name, words in balanced.items() if words}
    summary = Joined((_description(table), _on_balance(balanced)))
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
            + (_BALANCE_METHOD if balanced else "")
        ),
        sources=(*SOURCES, *(SOURCES_ON_BALANCE if balanced else ())),
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
                "balanced accuracy then": _balanced_at(curves[one.folder], best["epoch"]),
                "best epoch": str(int(best["epoch"])),
                "new bests at": ", ".join(
                    f"{epoch:.0f}" for epoch in known["epoch"][new_bests(known["val_accuracy"])]
                ),
            }
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def _nats(loss: float) -> str:
    return with_unit(Numeral(f"{loss:.3g}"), "nats", " ")


def _description(table: pd.DataFrame) -> str:
    """The accuracy, or else the loss, of each network after its last epoch."""
    accuracy = message("After the last epoch the validation accuracy is {amounts}.")
    loss = message("After the last epoch the training loss is {amounts}.")
    for name, form, words in (("val_accuracy", percent, accuracy), ("train_loss", _nats, loss)):
        column = f"last {CURVES[name]}"
        if column in table.columns:
            means = table.groupby("network", sort=False)[column].mean().dropna()
            said = [
                Said("{amount} in {network}", amount=form(mean), network=str(network))
                for network, mean in means.items()
            ]
            if said:
                return Said(words, amounts=listing(said))
    return Said("Loss and accuracy were recorded only as the curves below.")


_BALANCE_METHOD = (
    " The balanced accuracy is the mean of the accuracies of the classes; in its interval, the "
    "squares of the distances to the ends of Wilson's intervals of the classes add up."
)


def _on_balance(balanced: dict[str, str]) -> str:
    """The sentence on the balanced accuracy, by network in words; "" if the classes are."""
    if not balanced:
        return ""
    said = listing([f"{words} in {network}" for network, words in balanced.items()])
    return f"The classes differ in size: the balanced accuracy, the mean over classes, is {said}."


def _balanced_at(curves: pd.DataFrame, epoch: float) -> float:
    if "balanced" not in curves:
        return float("nan")
    return float(curves.loc[curves["epoch"] == epoch, "balanced"].iloc[0])


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
    if any("balanced" in one for runs in grouped.values() for one in runs):
        parts.append("Dotted: balanced accuracy, the mean over classes, with its 95 % interval.")
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
    if name == "val_accuracy" and "balanced" in mean:
        names = {"balanced_low": "low", "balanced_high": "high"}
        of_classes = mean.drop(columns=["low", "high"], errors="ignore").rename(columns=names)
        label = f"{network}, balanced"
        panels.curve(axis, of_classes, "epoch", "balanced", color=colour, ls=":", label=label)
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
