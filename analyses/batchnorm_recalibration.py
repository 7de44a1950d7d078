"""How much of the jumps of validation accuracy goes away with fresh batch-norm statistics?

An intervention: the weights stay as they are, only the running statistics are re-estimated on
training images. What would count against stale statistics: jumps that stay, so that less than half
of the movement goes away.
"""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from analyses import plots
from analyses.accuracy_movement import Movement, Pair, movement_removed, pair_of
from analyses.frames import accuracy_by_epoch, by_network, copies_caveat
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict
from analyses.statistics import RESAMPLES, verdict_above
from analyses.wording import between, listing, number, percent, plural, slug
from gradflow.runs.reader import Experiment

HALF = 0.5
MIN_CHANGES = 3
MOST_ROWS = 12
TREND = (
    "Movement counts steady rises as well as jumps, and learning stays with fresh statistics; "
    "so the share removed understates what happens to the jumps alone."
)
SOURCES = (
    "Ioffe & Szegedy 2015, Batch normalization (running statistics)",
    "Wu & Johnson 2021, Rethinking 'batch' in BatchNorm (precise statistics)",
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
)


def run(experiment: Experiment, half: float = HALF) -> AnalysisResult:
    """Compare the jumps with running and with re-estimated batch-norm statistics.

    `half` is the share of movement from which most of it counts as removed.

    Raises `NotApplicableError` where no run recorded both at two epochs.
    """
    networks = {
        name: pairs
        for name, runs in by_network(list(experiment.runs)).items()
        if (pairs := [pair for one in runs if (pair := pair_of(one)) is not None])
    }
    if not networks:
        raise NotApplicableError(
            "no run recorded predictions with running and with re-estimated batch-norm statistics "
            "(tables predictions and recalibration) at two epochs or more"
        )
    moved = {name: movement_removed(pairs) for name, pairs in networks.items()}
    recorded = by_network(list(experiment.runs))
    findings = tuple(
        _finding(name, networks[name], moved[name], half, copies_caveat(recorded[name]))
        for name in networks
    )
    return AnalysisResult(
        summary=" ".join(finding.meaning for finding in findings),
        findings=findings,
        figures=(_figure(experiment.networks, networks, moved),),
        tables=(
            Table("movement", "Squared movement of validation accuracy", _table(moved)),
            Table("jumps", f"The {MOST_ROWS} largest changes and what is left", _jumps(networks)),
        ),
        method=(
            "At each epoch's end the validation images are predicted twice with the same weights: "
            "with the running statistics of batch normalization, and with statistics re-estimated "
            "on training images. Movement M = sum over epochs of (delta^2 - v), delta the change "
            "of accuracy, v = (b + c)/n^2 - (b - c)^2/n^3 its sampling variance from the "
            "discordant counts b and c on n images. Share removed = 1 - M(re-estimated) / "
            f"M(running); interval by a bootstrap over images with {RESAMPLES:,} resamples, the "
            "same images in both series, centred on the estimate."
        ),
        sources=SOURCES,
    )


def _finding(
    network: str, pairs: list[Pair], moved: Movement, half: float, caveats: tuple[str, ...]
) -> Finding:
    changes = sum(len(pair.epochs) - 1 for pair in pairs)
    moves = moved.running_low > 0 and changes >= MIN_CHANGES
    verdict = (
        verdict_above(moved.removed_low, moved.removed_high, half)
        if moves
        else Verdict.INCONCLUSIVE
    )
    images = pairs[0].running.shape[1]
    return Finding(
        key=slug(f"stale-statistics-{network}"),
        network=network,
        hypothesis=f"Most of the jumps of {network} come from stale running statistics.",
        contradicted_by=f"A share removed whose interval lies below {percent(half)}.",
        verdict=verdict,
        estimates=(
            Estimate(
                "share of squared movement removed",
                moved.removed,
                moved.removed_low,
                moved.removed_high,
                method=f"bootstrap over {plural(images, 'image')}, {plural(len(pairs), 'seed')}",
            ),
            *(
                Estimate(f"squared movement, {name} statistics", value, low, high)
                for name, value, low, high in (
                    ("running", moved.running, moved.running_low, moved.running_high),
                    ("re-estimated", moved.fresh, moved.fresh_low, moved.fresh_high),
                )
            ),
        ),
        threshold=(
            f"supported where the 95 % interval of the share removed lies above {percent(half)}; "
            f"asked from {MIN_CHANGES} changes on, where the interval of the movement lies above 0"
        ),
        meaning=_meaning(network, moved, changes, verdict),
        next_step=_next_step(verdict),
        caveats=(
            TREND,
            f"The interval speaks of other images, not of other seeds ({len(pairs)} here).",
            *caveats,
        ),
    )


def _meaning(network: str, moved: Movement, changes: int, verdict: Verdict) -> str:
    if changes < MIN_CHANGES:
        return (
            f"Whether stale running statistics make the validation accuracy of {network} jump "
            f"cannot be told from {plural(changes, 'change')} between epochs."
        )
    if moved.running_low <= 0 or moved.removed is None:
        return (
            f"Whether stale running statistics cause the jumps of {network} cannot be told: the "
            f"squared movement over all its epochs, {number(moved.running)} "
            f"{between(moved.running_low, moved.running_high)}, may be sampling noise alone."
        )
    words = {
        Verdict.SUPPORTED: "Stale running statistics cause most of the jumps of {}",
        Verdict.CONTRADICTED: "Stale running statistics do not cause most of the jumps of {}",
        Verdict.INCONCLUSIVE: (
            "Whether stale running statistics cause most of the jumps of {} cannot be told"
        ),
    }[verdict].format(network)
    return (
        f"{words}: re-estimating them, with no weight changed, {_removal(moved)} "
        f"{between(moved.removed_low, moved.removed_high, percent)} of its squared movement."
    )


def _removal(moved: Movement) -> str:
    """What was removed; a negative share is movement added."""
    removed = moved.removed or 0.0
    return (
        f"removes {percent(removed)}" if removed >= 0 else f"adds, not removes: {percent(removed)}"
    )


def _next_step(verdict: Verdict) -> str:
    return {
        Verdict.SUPPORTED: (
            "Judge checkpoints with re-estimated statistics, or raise the running statistics' "
            "momentum, and see whether the networks still differ."
        ),
        Verdict.CONTRADICTED: (
            "Look for what moves the weights themselves: learning rate, batch size, gradients."
        ),
        Verdict.INCONCLUSIVE: "Hold out more validation images, or train more epochs and seeds.",
    }[verdict]


def _table(moved: dict[str, Movement]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": name,
                "movement, running": one.running,
                "movement, re-estimated": one.fresh,
                "share removed": one.removed,
                "95 % low": one.removed_low,
                "95 % high": one.removed_high,
            }
            for name, one in moved.items()
        ]
    )


def _jumps(networks: dict[str, list[Pair]]) -> pd.DataFrame:
    rows = [
        {
            "network": network,
            "seed": pair.seed,
            "into epoch": epoch,
            "change, running": running,
            "change, re-estimated": fresh,
        }
        for network, pairs in networks.items()
        for pair in pairs
        for epoch, running, fresh in zip(
            pair.epochs[1:],
            np.diff(pair.running.mean(axis=1)),
            np.diff(pair.fresh.mean(axis=1)),
            strict=True,
        )
    ]
    frame = pd.DataFrame(rows)
    largest = frame["change, running"].abs().nlargest(MOST_ROWS).index
    return frame.loc[sorted(largest)].reset_index(drop=True)


def _figure(
    networks: list[str], pairs: dict[str, list[Pair]], moved: dict[str, Movement]
) -> Figure:
    said = [
        f"{percent(one.removed)} of the movement of {name}"
        for name, one in moved.items()
        if one.removed is not None and one.running_low > 0
    ]
    title = (
        f"Re-estimated batch-norm statistics remove {listing(said)}"
        if said
        else "The movement of all epochs together may be sampling noise alone"
    )
    return Figure(
        key="two-statistics",
        title=title,
        caption=(
            "Validation accuracy by epoch with running batch-norm statistics (solid) and with "
            "statistics re-estimated on training images (dashed, open markers), weights "
            "unchanged. Bands: Wilson 95 % intervals, where there is one seed; with several, thin "
            "lines are seeds and thick ones their mean."
        ),
        alt=f"Validation accuracy by epoch, running against re-estimated statistics. {title}.",
        draw=partial(_draw, networks, pairs),
    )


@plots.themed
def _draw(networks: list[str], pairs: dict[str, list[Pair]]) -> Drawing:
    figure, axes = plots.panels(1, len(pairs), 2.8, sharey=True)
    palette, marks = plots.colours(networks), plots.markers(networks)
    for axis, (network, members) in zip(axes[0], pairs.items(), strict=True):
        for name, line, filled, label in (
            ("running", "-", palette[network], "running statistics"),
            ("fresh", "--", "white", "re-estimated statistics"),
        ):
            frames = [
                accuracy_by_epoch(pd.DataFrame(getattr(pair, name), index=pair.epochs))
                for pair in members
            ]
            if len(frames) > 1:
                for one in frames:
                    thin = {"color": palette[network], "lw": 0.6, "alpha": 0.6, "ls": line}
                    axis.plot(one["epoch"], one["accuracy"], **thin)
                together = pd.concat(frames)[["epoch", "accuracy"]]
                frames = [together.groupby("epoch", as_index=False).mean()]
            style = {"color": palette[network], "marker": marks[network], "mfc": filled}
            plots.curve(axis, frames[0], "epoch", "accuracy", ls=line, label=label, **style)
        axis.set_title(network)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        plots.epoch_axis(axis)
    axes[0, 0].set_ylabel("validation accuracy")
    plots.legend_below(figure, list(axes[0]))
    return figure


ANALYSIS = Analysis(
    key="batchnorm_recalibration",
    title="Batch-norm recalibration",
    question="How much of the jumps goes away with fresh batch-norm statistics?",
    run=run,
)
