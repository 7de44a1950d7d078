"""Draws the finding that the README and the site begin with, and says it in a sentence.

    python -m gradflow.train_and_trace --out runs/digits
    python docs/finding.py runs/digits

Writes docs/_static/finding.png. Needs plain34 and resnet34 in the experiment.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gradflow
from analyses.plotting.panels import subplots
from analyses.plotting.theme import themed

PICTURE = Path(__file__).parent / "_static" / "finding.png"
MEASURED, FRESH = "#a3472f", "#2f6d9b"


def accuracies(run: gradflow.Run) -> pd.DataFrame:
    """Validation accuracy by epoch, in percent: as measured, and with re-estimated statistics."""
    tables = {"measured": run.predictions, "fresh": run.recalibration}
    return pd.DataFrame(
        {
            name: 100 * (table.target == table.prediction).groupby(table.epoch).mean()
            for name, table in tables.items()
        }
    )


def sentence(plain: pd.DataFrame) -> str:
    """The largest fall of plain34's accuracy, and what fresh statistics give in that epoch."""
    epoch = int(plain.measured.diff().idxmin())
    before, after, fresh = *plain.measured[[epoch - 1, epoch]], plain.fresh[epoch]
    return (
        f"In epoch {epoch} the accuracy of plain34 falls from {before:.1f} % to {after:.1f} %. "
        f"With batch-norm statistics re-estimated, the same weights give {fresh:.1f} %."
    )


@themed
def picture(plain: pd.DataFrame, residual: pd.DataFrame) -> Figure:
    """Accuracy by epoch of both networks, with the gap between the two ways filled."""
    figure, axes = subplots(1, 2, 2.9, sharey=True)
    for axis, frame, name in zip(axes[0], (plain, residual), ("plain34", "resnet34"), strict=True):
        _panel(axis, frame, name)
    axes[0, 0].set_ylabel("validation accuracy (%)")
    return figure


def _panel(axis: Axes, frame: pd.DataFrame, name: str) -> None:
    epochs = frame.index.to_numpy()
    axis.fill_between(epochs, frame.measured, frame.fresh, color="0.85", linewidth=0)
    axis.plot(epochs, frame.fresh, color=FRESH, marker="o", markersize=4, linestyle="--")
    axis.plot(epochs, frame.measured, color=MEASURED, marker="s", markersize=4)
    axis.set_title(name)
    axis.set_xlabel("epoch")
    axis.set_xticks(epochs)
    if name == "plain34":
        gap = frame.fresh - frame.measured
        wide = gap.rolling(2).min().idxmax()  # over this epoch and the one before
        lowest = int(frame.measured[2:].idxmin())
        highest = int(frame.fresh[1:-1].idxmax())
        _write(axis, "as measured", (lowest, frame.measured[lowest]), -14, MEASURED)
        _write(axis, "statistics re-estimated", (highest, frame.fresh[highest]), 7, FRESH)
        middle = (frame.fresh + frame.measured)[[wide - 1, wide]].mean() / 2
        _write(axis, "stale\nstatistics", (wide - 0.5, middle), 0, "0.25")
    axis.set_ylim(top=107)


def _write(axis: Axes, words: str, at: tuple[float, float], above: int, colour: str) -> None:
    axis.annotate(
        words,
        at,
        (0, above),
        textcoords="offset points",
        ha="center",
        va="center" if not above else "baseline",
        color=colour,
        fontsize=8,
    )


def main(folder: str) -> None:
    """Draw the finding of the experiment in `folder`, and print it."""
    runs = {run.network: run for run in gradflow.open_experiment(folder).runs}
    plain, residual = (accuracies(runs[name]) for name in ("plain34", "resnet34"))
    picture(plain, residual).savefig(PICTURE, dpi=140, metadata={"Software": None})
    print(sentence(plain))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
