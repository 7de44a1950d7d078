"""Which classes does each network tell apart at its best epoch, and which does it confuse?

Contradicted by a class that is never predicted, or found less often than by chance.
"""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray

from analyses.accuracy.classification.measure import (
    BestEpoch,
    best_epoch,
    confusion,
    lowest_recall,
    pooled_predictions,
)
from analyses.plotting import panels, theme
from analyses.reading.predictions import duplicates_caveat
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Figure, Finding, Length, Table, Verdict
from analyses.wording.numbers import interval_text, percent
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from gradflow.runs.reading.run import Experiment, Run

BEST_EPOCH_CAVEAT = (
    "The best epoch is chosen on the validation images themselves, so the numbers are optimistic."
)
HYPOTHESIS = "Every class is found more often than chance[ by {}]."
LEAD = "the lowest recall is {}"
MAX_LABELLED_CLASSES = 12  # with more classes, the counts in the cells would overlap


def report_by_class(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class, then the means; 0 where nothing divides."""
    targets, taken = (predictions[name].to_numpy() for name in ("target", "prediction"))
    places = np.arange(len(classes))[:, None]
    right = ((targets == places) & (taken == places)).sum(axis=1)
    support, chosen = (targets == places).sum(axis=1), (taken == places).sum(axis=1)
    frame = pd.DataFrame(
        {
            "class": classes,
            "precision": right / np.maximum(chosen, 1),
            "recall": right / np.maximum(support, 1),
            "F1": 2 * right / np.maximum(chosen + support, 1),
            "support": support,
        }
    )
    means = frame[["precision", "recall", "F1"]].mean()
    frame.loc[len(frame)] = {"class": "mean of classes", **means, "support": support.sum()}
    return frame.astype({"support": int})


def class_names(run: Run) -> list[str]:
    """The names of the run's classes; if they are unknown, the indices up to the largest."""
    if run.classes:
        return run.classes
    highest = int(run.predictions[["target", "prediction"]].to_numpy().max())
    return [str(index) for index in range(highest + 1)]


def run(experiment: Experiment) -> AnalysisResult:
    """Confusion matrix and classification report of each network at its best epoch.

    Raises `NotApplicableError` if no run recorded predictions.
    """
    networks = by_network(runs_with(experiment, "predictions", "predictions by image"))
    best = {name: [best_epoch(one) for one in runs] for name, runs in networks.items()}
    classes = {name: class_names(runs[0]) for name, runs in networks.items()}
    findings = tuple(
        _finding(name, best[name], classes[name], duplicates_caveat(runs))
        for name, runs in networks.items()
    )
    every_class = sentence([_statement(name, best[name], classes[name]) for name in networks], LEAD)
    reports = tuple(
        Table(
            f"report-{slug(name)}",
            f"{name}: classification report at the best epoch, "
            f"{plural(len(best[name]), 'seed')} together",
            report_by_class(pooled_predictions(best[name]), classes[name]),
        )
        for name in networks
    )
    figures = tuple(_figure(best[name][0], classes[name], len(best[name])) for name in networks)
    # The first seed only: the confusion matrix is that of its run.
    said = [
        f"{percent(one.accuracy)} {interval_text(one.low, one.high, percent)} in {one.network} "
        f"at epoch {one.epoch}"
        for one in (runs[0] for runs in best.values())
    ]
    return AnalysisResult(
        summary=f"The best validation accuracy is {listing(said)}. {every_class}",
        findings=findings,
        figures=figures,
        tables=(Table("best", "Best epoch of each run", _accuracies(best)), *reports),
        method=(
            "At the first epoch of highest validation accuracy of each run: confusion matrix and "
            "precision, recall, F1 and support of each class (as in scikit-learn; a ratio with an "
            "empty denominator counts as 0); accuracy and recall with Wilson's interval, recall at "
            "a level corrected for the number of classes (Bonferroni)."
        ),
        sources=(
            "Pedregosa et al. 2011, Scikit-learn: machine learning in Python",
            "Wilson 1927, Probable inference, the law of succession, and statistical inference",
        ),
        together={"every-class": every_class},
    )


def _finding(
    network: str, best: list[BestEpoch], classes: list[str], caveats: tuple[str, ...]
) -> Finding:
    found = lowest_recall(best, classes)
    return Finding(
        key=f"every-class-{slug(network)}",
        network=network,
        hypothesis=with_network(HYPOTHESIS, network),
        contradicted_by="A class never predicted, or a recall whose interval lies below chance.",
        verdict=found.verdict,
        estimates=(found.recall,),
        threshold=(
            "supported if the interval of the lowest recall lies above chance, 1 / "
            f"{len(classes)} classes = {percent(found.chance)}"
        ),
        meaning=sentence([_statement(network, best, classes)], LEAD),
        next_step="Look at the images of that class that were classified as another.",
        caveats=(BEST_EPOCH_CAVEAT, *caveats),
        statement=without_network(HYPOTHESIS),
        evidence=(f"confusion-{slug(network)}", f"report-{slug(network)}", "best"),
        bad_if=Verdict.CONTRADICTED,
    )


def _statement(network: str, best: list[BestEpoch], classes: list[str]) -> NetworkStatement:
    found = lowest_recall(best, classes)
    clause = {
        Verdict.SUPPORTED: "every class is found more often than chance",
        Verdict.CONTRADICTED: "some class is found less often than chance",
        Verdict.INCONCLUSIVE: "it cannot be told whether every class is found more often than "
        "chance",
    }[found.verdict]
    if found.never:
        clause = f"no image is ever classified as class {listing(found.never)}"
    return NetworkStatement(network, clause, f"{found.recall.words} for class {found.name}")


def _accuracies(best: dict[str, list[BestEpoch]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": one.network,
                "seed": one.seed,
                "best epoch": one.epoch,
                "accuracy": one.accuracy,
                "95 % low": one.low,
                "95 % high": one.high,
                "images": len(one.predictions),
            }
            for runs in best.values()
            for one in runs
        ]
    )


def _figure(best: BestEpoch, classes: list[str], seeds: int) -> Figure:
    counts = confusion(best.predictions, classes)
    wrong = counts - np.diag(counts.diagonal())
    true, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
    title = (
        f"{best.network} most often classifies {classes[true]} as {classes[taken]} "
        f"({wrong[true, taken]} of {counts[true].sum()} images)"
        if wrong.any()
        else f"{best.network} confuses no classes"
    )
    of_seed = f", seed {best.seed}" if seeds > 1 else ""
    return Figure(
        key=f"confusion-{slug(best.network)}",
        title=title,
        caption=(
            f"Confusion matrix of {best.network}{of_seed} at epoch {best.epoch}, its best: "
            f"{plural(len(best.predictions), 'validation image')}. Numbers count images; "
            f"shades are the share of the true class. {BEST_EPOCH_CAVEAT}"
        ),
        alt=f"Confusion matrix of {best.network} over {len(classes)} classes. {title}.",
        draw=partial(_draw, counts, classes),
        length=Length.FULL,
    )


@theme.themed
def _draw(counts: NDArray[np.int64], classes: list[str]) -> Drawing:
    figure, axes = panels.subplots(1, 1, 3.6)
    axis = axes[0, 0]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    places = range(len(classes))
    if len(classes) <= MAX_LABELLED_CLASSES:
        long = sum(map(len, classes)) > 36
        axis.set_xticks(
            places, classes, rotation=30 if long else 0, ha="right" if long else "center"
        )
        axis.set_yticks(places, classes)
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if share[row, column] > 0.55 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=shade)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    figure.colorbar(drawn, ax=axis, label="share of the true class")
    return figure


ANALYSIS = Analysis(
    key="classification",
    title="Classification",
    question="Which classes does each network tell apart at its best epoch, and which not?",
    run=run,
    background=(
        "A confusion matrix counts, for the images of each class, which class the network "
        "predicted; recall is the share of a class that was found."
    ),
    order=190,
)
