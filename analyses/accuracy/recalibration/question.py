"""How much of the jumps of validation accuracy goes away with re-estimated batch-norm statistics?

An intervention: the weights stay as they are, only the running statistics are re-estimated on
training images. What would count against stale statistics: jumps that stay, so that less than half
of the movement goes away.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analyses.accuracy.recalibration.measure import Movement, Pair, movement_removed, pair_of
from analyses.plotting import panels, theme
from analyses.reading.predictions import accuracy_by_epoch, copies_caveat
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict
from analyses.statistics.bootstrap import RESAMPLES
from analyses.statistics.estimates import as_percent, estimate_of
from analyses.statistics.means import Mean
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import percent, share_bound, with_interval
from analyses.wording.phrases import listing, named, plural, slug, unnamed
from analyses.wording.sentences import Told, sentence
from gradflow.runs.reading.run import Experiment

HALF = 0.5
HYPOTHESIS = "Most of the jumps[ of {}] come from stale running statistics."
LEAD = (
    "of the squared movement of validation accuracy, re-estimating the statistics, with no weight "
    "changed, removes {}"
)
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
    together = sentence([_told(name, networks[name], moved[name], half) for name in networks], LEAD)
    return AnalysisResult(
        summary=together,
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
        together={"stale-statistics": together},
    )


def _finding(
    network: str, pairs: list[Pair], moved: Movement, half: float, caveats: tuple[str, ...]
) -> Finding:
    verdict, how = _verdict(pairs, moved, half), _removed(pairs, moved).method
    return Finding(
        key=slug(f"stale-statistics-{network}"),
        network=network,
        hypothesis=named(HYPOTHESIS, network),
        contradicted_by=f"A share removed whose interval lies below {share_bound(half)}.",
        verdict=verdict,
        estimates=(
            _removed(pairs, moved),
            *(
                Estimate(f"squared movement, {name} statistics", value, low, high, method=how)
                for name, value, low, high in (
                    ("running", moved.running, moved.running_low, moved.running_high),
                    ("re-estimated", moved.fresh, moved.fresh_low, moved.fresh_high),
                )
            ),
        ),
        threshold=(
            "supported where the 95 % interval of the share removed lies above "
            f"{share_bound(half)}; asked from {MIN_CHANGES} changes on, where the interval of the "
            "movement lies above 0"
        ),
        meaning=sentence([_told(network, pairs, moved, half)], LEAD),
        next_step=_next_step(verdict),
        caveats=(
            TREND,
            f"The interval speaks of other images, not of other seeds ({len(pairs)} here).",
            *caveats,
        ),
        statement=unnamed(HYPOTHESIS),
        evidence=("two-statistics", "movement", "jumps"),
    )


def _changes(pairs: list[Pair]) -> int:
    return sum(len(pair.epochs) - 1 for pair in pairs)


def _verdict(pairs: list[Pair], moved: Movement, half: float) -> Verdict:
    if moved.running_low > 0 and _changes(pairs) >= MIN_CHANGES:
        return verdict_above(moved.removed_low, moved.removed_high, half)
    return Verdict.INCONCLUSIVE


def _removed(pairs: list[Pair], moved: Movement) -> Estimate:
    images = plural(pairs[0].running.shape[1], "image")
    method = f"bootstrap over {images}, {plural(len(pairs), 'seed')}"
    removed = Mean(moved.removed, moved.removed_low, moved.removed_high, method)
    return estimate_of("share of squared movement removed", removed, "%", as_percent)


def _told(network: str, pairs: list[Pair], moved: Movement, half: float) -> Told:
    """What is removed; a negative share is movement added."""
    cause = "stale running statistics cause most of the jumps"
    clause = {
        Verdict.SUPPORTED: cause,
        Verdict.CONTRADICTED: cause.replace("cause", "do not cause"),
        Verdict.INCONCLUSIVE: f"it cannot be told whether {cause}",
    }[_verdict(pairs, moved, half)]
    changes = _changes(pairs)
    if changes < MIN_CHANGES:
        return Told(
            network, clause, detail=f"{plural(changes, 'change')} between epochs, too few to tell"
        )
    if moved.running_low <= 0 or moved.removed is None:
        movement = with_interval(moved.running, moved.running_low, moved.running_high)
        reason = f"the squared movement, {movement}, may be sampling noise alone"
        return Told(network, clause, detail=reason)
    return Told(network, clause, _removed(pairs, moved).words)


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


@theme.themed
def _draw(networks: list[str], pairs: dict[str, list[Pair]]) -> Drawing:
    styles = theme.styles(networks)
    with panels.row(list(pairs), 2.8, "validation accuracy") as (figure, axes):
        for axis, (network, members) in zip(axes, pairs.items(), strict=True):
            _draw_network(axis, members, styles[network])
            panels.percent_axis(axis)
    return figure


def _draw_network(axis: Axes, members: list[Pair], style: dict[str, Any]) -> None:
    for name, line, fill, label in (
        ("running", "-", {}, "running statistics"),
        ("fresh", "--", {"mfc": "white"}, "re-estimated statistics"),
    ):
        frames = [
            accuracy_by_epoch(pd.DataFrame(getattr(pair, name), index=pair.epochs))
            for pair in members
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
        "validation; where these lag behind the weights, accuracy can drop although the "
        "weights are no worse."
    ),
    order=60,
)
