"""How much of the jumps of validation accuracy goes away with re-estimated batch-norm statistics?

An intervention: the weights stay the same, only the running statistics are re-estimated on training
images. Contradicted if re-estimation removes less than half of the movement.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.accuracy.recalibration.measure import (
    Movement,
    RecalibrationSeries,
    movement_and_removal,
    recalibration_series,
)
from analyses.plotting import panels, theme
from analyses.reading.predictions import accuracy_by_epoch, duplicates_caveat
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict
from analyses.statistics.bootstrap import RESAMPLES
from analyses.statistics.estimates import as_percent, estimate_of, share_of
from analyses.statistics.means import Mean
from analyses.statistics.proportions import wilson_interval
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import share_bound, with_interval
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.shares import share_text
from analyses.wording.translatable import Said, message
from gradflow.runs.reading.run import Experiment

HALF = 0.5
HYPOTHESIS = "Most of the jumps[ of {}] come from stale running statistics."
LEAD = message(
    "of the squared movement of validation accuracy, re-estimating the statistics, with no weight "
    "changed, removes {}"
)
# The accuracies at the epoch at which they differ most; their method begins with the epoch.
LARGEST_DIFFERENCE = "accuracy where the two differ most, {} statistics"
MIN_CHANGES = 3
MAX_ROWS = 12
LEARNING_CAVEAT = (
    "Movement includes steady rises as well as jumps, and re-estimation does not remove learning; "
    "so the share removed is an underestimate for the jumps alone."
)
SOURCES = (
    "Ioffe & Szegedy 2015, Batch normalization (running statistics)",
    "Wu & Johnson 2021, Rethinking 'batch' in BatchNorm (precise statistics)",
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
)


def run(experiment: Experiment, half: float = HALF) -> AnalysisResult:
    """Compare the jumps with running and with re-estimated batch-norm statistics.

    `half` is the share of movement from which most of it counts as removed.

    Raises `NotApplicableError` if no run recorded both at two epochs.
    """
    networks = {
        name: series
        for name, runs in by_network(list(experiment.runs)).items()
        if (series := [both for one in runs if (both := recalibration_series(one)) is not None])
    }
    if not networks:
        raise NotApplicableError(
            "no run recorded predictions with running and with re-estimated batch-norm statistics "
            "(tables predictions and recalibration) at two epochs or more"
        )
    moved = {name: movement_and_removal(series) for name, series in networks.items()}
    recorded = by_network(list(experiment.runs))
    findings = tuple(
        _finding(name, networks[name], moved[name], half, duplicates_caveat(recorded[name]))
        for name in networks
    )
    together = sentence(
        [_statement(name, networks[name], moved[name], half) for name in networks], LEAD
    )
    return AnalysisResult(
        summary=together,
        findings=findings,
        figures=(_figure(experiment.networks, networks, moved),),
        tables=(
            Table("movement", "Squared movement of validation accuracy", _table(moved)),
            Table(
                "jumps",
                f"The {MAX_ROWS} largest changes, with and without re-estimation",
                _jumps(networks),
            ),
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
        together={"stale-statistics": together},
    )


def _finding(
    network: str,
    series: list[RecalibrationSeries],
    moved: Movement,
    half: float,
    caveats: tuple[str, ...],
) -> Finding:
    verdict, how = _verdict(series, moved, half), _removed(series, moved).method
    return Finding(
        key=slug(f"stale-statistics-{network}"),
        network=network,
        hypothesis=with_network(HYPOTHESIS, network),
        contradicted_by=f"A share removed whose interval lies below {share_bound(half)}.",
        verdict=verdict,
        estimates=(
            _removed(series, moved),
            *(
                Estimate(f"squared movement, {name} statistics", value, low, high, method=how)
                for name, value, low, high in (
                    ("running", moved.running, moved.running_low, moved.running_high),
                    (
                        "re-estimated",
                        moved.re_estimated,
                        moved.re_estimated_low,
                        moved.re_estimated_high,
                    ),
                )
            ),
            *_largest_difference(series),
        ),
        threshold=(
            "supported if the 95 % interval of the share removed lies above "
            f"{share_bound(half)}; needs at least {MIN_CHANGES} changes, and an interval of the "
            "movement above 0"
        ),
        meaning=sentence([_statement(network, series, moved, half)], LEAD),
        next_step=_next_step(verdict),
        caveats=(
            LEARNING_CAVEAT,
            f"The interval is about other images, not about other seeds ({len(series)} here).",
            *caveats,
        ),
        statement=without_network(HYPOTHESIS),
        evidence=("two-statistics", "movement", "jumps"),
    )


def _largest_difference(series: list[RecalibrationSeries]) -> tuple[Estimate, ...]:
    """Both accuracies, in %, at the seed and epoch at which they differ most."""
    both, place = max(
        ((both, place) for both in series for place in range(len(both.epochs))),
        key=lambda one: abs(one[0].re_estimated[one[1]].mean() - one[0].running[one[1]].mean()),
    )
    seed = f" of seed {both.seed}" if len(series) > 1 else ""
    method = f"epoch {both.epochs[place]}{seed}; Wilson's interval"
    estimates = []
    for name, right in (
        ("running", both.running[place]),
        ("re-estimated", both.re_estimated[place]),
    ):
        low, high = wilson_interval(int(right.sum()), len(right))
        mean = Mean(float(right.mean()), low, high, method)
        estimates.append(estimate_of(LARGEST_DIFFERENCE.format(name), mean, "%", as_percent))
    return tuple(estimates)


def _changes(series: list[RecalibrationSeries]) -> int:
    return sum(len(both.epochs) - 1 for both in series)


def _verdict(series: list[RecalibrationSeries], moved: Movement, half: float) -> Verdict:
    if moved.running_low > 0 and _changes(series) >= MIN_CHANGES:
        return verdict_above(moved.removed_low, moved.removed_high, half)
    return Verdict.INCONCLUSIVE


def _removed(series: list[RecalibrationSeries], moved: Movement) -> Estimate:
    images = plural(series[0].running.shape[1], "image")
    method = f"bootstrap over {images}, {plural(len(series), 'seed')}"
    removed = Mean(moved.removed, moved.removed_low, moved.removed_high, method)
    return share_of("share of squared movement removed", removed)


def _statement(
    network: str, series: list[RecalibrationSeries], moved: Movement, half: float
) -> NetworkStatement:
    """The share removed; a negative share means that re-estimation adds movement."""
    clause = {
        Verdict.SUPPORTED: message("stale running statistics cause most of the jumps"),
        Verdict.CONTRADICTED: message("stale running statistics do not cause most of the jumps"),
        Verdict.INCONCLUSIVE: message(
            "it cannot be told whether stale running statistics cause most of the jumps"
        ),
    }[_verdict(series, moved, half)]
    changes = _changes(series)
    if changes < MIN_CHANGES:
        few = Said("{changes} between epochs, too few to tell", changes=plural(changes, "change"))
        return NetworkStatement(network, clause, detail=few)
    if moved.running_low <= 0 or moved.removed is None:
        movement = with_interval(moved.running, moved.running_low, moved.running_high)
        reason = Said(
            "the squared movement, {movement}, may be sampling noise alone", movement=movement
        )
        return NetworkStatement(network, clause, detail=reason)
    return NetworkStatement(network, clause, _removed(series, moved).words)


def _next_step(verdict: Verdict) -> str:
    return {
        Verdict.SUPPORTED: message(
            "Judge checkpoints with re-estimated statistics, or raise the running statistics' "
            "momentum, and see whether the networks still differ."
        ),
        Verdict.CONTRADICTED: message(
            "Look for what changes the weights themselves: learning rate, batch size, gradients."
        ),
        Verdict.INCONCLUSIVE: message(
            "Hold out more validation images, or train more epochs and seeds."
        ),
    }[verdict]


def _table(moved: dict[str, Movement]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": name,
                "movement, running": one.running,
                "movement, re-estimated": one.re_estimated,
                "share removed": one.removed,
                "95 % low": one.removed_low,
                "95 % high": one.removed_high,
            }
            for name, one in moved.items()
        ]
    )


def _jumps(networks: dict[str, list[RecalibrationSeries]]) -> pd.DataFrame:
    rows = [
        {
            "network": network,
            "seed": both.seed,
            "into epoch": epoch,
            "change, running": running,
            "change, re-estimated": fresh,
        }
        for network, series in networks.items()
        for both in series
        for epoch, running, fresh in zip(
            both.epochs[1:],
            np.diff(both.running.mean(axis=1)),
            np.diff(both.re_estimated.mean(axis=1)),
            strict=True,
        )
    ]
    frame = pd.DataFrame(rows)
    largest = frame["change, running"].abs().nlargest(MAX_ROWS).index
    return frame.loc[sorted(largest)].reset_index(drop=True)


def _figure(
    networks: list[str], series: dict[str, list[RecalibrationSeries]], moved: dict[str, Movement]
) -> Figure:
    said = [
        Said("{share} of the movement of {network}", share=share_text(one.removed), network=name)
        for name, one in moved.items()
        if one.removed is not None and one.running_low > 0
    ]
    title = (
        Said("Re-estimated batch-norm statistics remove {shares}", shares=listing(said))
        if said
        else message("The movement of all epochs together may be sampling noise alone")
    )
    return Figure(
        key="two-statistics",
        title=title,
        caption=(
            "Validation accuracy by epoch with running batch-norm statistics (solid) and with "
            "statistics re-estimated on training images (dashed, open markers), weights "
            "unchanged. Bands: Wilson 95 % intervals, if there is one seed; with several, thin "
            "lines are seeds and thick lines their mean."
        ),
        alt=f"Validation accuracy by epoch, running against re-estimated statistics. {title}.",
        draw=partial(_draw, networks, series),
    )


@theme.themed
def _draw(networks: list[str], series: dict[str, list[RecalibrationSeries]]) -> Drawing:
    styles = theme.styles(networks)
    with panels.row(list(series), 2.8, "validation accuracy") as (figure, axes):
        for axis, (network, members) in zip(axes, series.items(), strict=True):
            _draw_network(axis, members, styles[network])
            panels.percent_axis(axis)
    return figure


def _draw_network(axis: Axes, members: list[RecalibrationSeries], style: dict[str, Any]) -> None:
    for name, line, fill, label in (
        ("running", "-", {}, "running statistics"),
        ("re_estimated", "--", {"mfc": "white"}, "re-estimated statistics"),
    ):
        frames = [
            accuracy_by_epoch(pd.DataFrame(getattr(both, name), index=both.epochs))
            for both in members
        ]
        if len(frames) > 1:
            for one in frames:
                thin = {"color": style["color"], "lw": 0.6, "alpha": 0.6, "ls": line}
                axis.plot(one["epoch"], one["accuracy"], **thin)
            together = pd.concat(frames)[["epoch", "accuracy"]]
            frames = [together.groupby("epoch", as_index=False).mean()]
        panels.curve(axis, frames[0], "epoch", "accuracy", ls=line, label=label, **style, **fill)


ANALYSIS = Analysis(
    key="batchnorm_recalibration",
    title="Re-estimated batch-norm statistics",
    question="How much of the jumps goes away with re-estimated batch-norm statistics?",
    run=run,
    background=(
        "Batch normalization uses running averages of each channel's mean and variance at "
        "validation; if these lag behind the weights, accuracy can drop although the "
        "weights are no worse."
    ),
    order=60,
)
