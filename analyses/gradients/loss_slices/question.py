"""What does the training loss look like around the weights, and between epochs of a jump?

At epochs where the validation accuracy moved by more than sampling noise, the loss was measured
along the straight line from the weights before to those after. A barrier between them is
contradicted by a loss that exceeds both ends nowhere on the line.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.gradients.loss_slices.figures import (
    between_epochs_figure,
    sharpness_figure,
    surroundings_figure,
)
from analyses.reading.runs import by_network, seed_label
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict
from analyses.statistics.proportions import wilson_interval
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number, share_bound, with_unit
from analyses.wording.phrases import plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said
from gradflow.runs.reading.run import Experiment, Run

SLICES, SHARPNESS = "loss_slice", "sharpness"
BETWEEN = "between epochs"
HALF = 0.5
HYPOTHESIS = (
    "Between the weights before and after a jump[ of {}], the training loss rises above both."
)
LEAD = "it rises above both ends at {}"
ONE_BATCH = (
    "The loss is that of one training batch with that batch's own statistics: another batch "
    "gives other numbers, and validation has other statistics still."
)
JUMPS_ONLY = (
    "The loss was recorded only at epochs where the accuracy jumped. Between calm epochs it may "
    "look the same."
)
SOURCES = (
    "Li et al. 2018, Visualizing the loss landscape of neural nets",
    "Frankle et al. 2020, Linear mode connectivity and the lottery ticket hypothesis",
    "Goodfellow et al. 2015, Qualitatively characterizing neural network optimization problems",
)


@dataclass(frozen=True)
class Barrier:
    """The loss between the weights before and after a jump.

    Fields:
        network, seed: the run.
        epoch: the epoch that the jump leads into.
        before, after: the losses at both ends, in nats.
        highest: the largest loss between them; NaN if a loss is not finite.
        height: `highest` less the larger of both ends; above 0 there is a barrier.
        images: number of images that the loss is over.
    """

    network: str
    seed: str
    epoch: int
    before: float
    after: float
    highest: float
    height: float
    images: int


def barriers(run: Run) -> list[Barrier]:
    """The barrier at every jump of `run` whose line has both ends and a point between them."""
    rows = run.table(SLICES)
    found = []
    for epoch, line in rows[rows["direction"] == BETWEEN].groupby("epoch"):
        losses = line.set_index("position")["loss"].astype(float)
        inside = losses[(losses.index > 0) & (losses.index < 1)]
        if not {0.0, 1.0} <= set(losses.index) or not len(inside):
            continue
        before, after, highest = losses[0.0], losses[1.0], inside.max(skipna=False)
        found.append(
            Barrier(
                run.network, seed_label(run), int(epoch), before, after, highest,
                highest - max(before, after), int(line["images"].iloc[0]),
            )
        )  # fmt: skip
    return found


def run(experiment: Experiment, half: float = HALF) -> AnalysisResult:
    """Show the slices of the loss at jumps, their barriers, and the sharpness by epoch.

    `half` is the share of jumps above which most of them are said to cross a barrier.

    Raises `NotApplicableError` if no run recorded slices or sharpness.
    """
    sliced = [one for one in experiment.runs if len(one.table(SLICES))]
    sharp = [one for one in experiment.runs if len(one.table(SHARPNESS))]
    if not sliced and not sharp:
        raise NotApplicableError(
            f"no run recorded the loss around its weights (the tables {SLICES} and {SHARPNESS} are "
            "empty), which this question needs: probes of these names record it"
        )
    found = {
        name: [barrier for one in runs for barrier in barriers(one)]
        for name, runs in by_network(sliced).items()
    }
    findings = tuple(_finding(name, crossed, half) for name, crossed in found.items())
    table = _sharpness(sharp)
    together = (
        sentence([_told(name, crossed, half) for name, crossed in found.items()], LEAD)
        if found
        else "Sharpness was measured, and the loss between epochs was not: no jump was recorded."
    )
    return AnalysisResult(
        summary=together,
        findings=findings,
        figures=_figures(experiment.networks, sliced, findings, table),
        tables=tuple(
            one
            for one in (
                Table("barriers", "Loss between the weights of two epochs", _barriers(found)),
                Table("sharpness", "Sharpness along the gradient", table),
            )
            if len(one.frame)
        ),
        method=(
            "Loss: mean cross-entropy of one fixed training batch in nats, batch norms using that "
            "batch's statistics. Between epochs: weights (1 - t) w_before + t w_after; barrier: "
            "the largest loss at 0 < t < 1 less the larger of both ends. Random direction: normal, "
            "each filter scaled to the norm of the weights' own. Gradient: w - t g/|g|. Sharpness: "
            "<g, H g>/<g, g>, H the Hessian, by an exact product. Interval of the share of jumps: "
            "Wilson's, each jump one trial."
        ),
        sources=SOURCES,
        together={"barrier": together} if found else {},
    )


def _finding(network: str, found: list[Barrier], half: float) -> Finding:
    verdict = _verdict(found, half)
    return Finding(
        key=slug(f"barrier-{network}"),
        network=network,
        hypothesis=with_network(HYPOTHESIS, network),
        contradicted_by=(
            f"A share of jumps with a barrier whose interval lies below {share_bound(half)}."
        ),
        verdict=verdict,
        estimates=_estimates(found),
        threshold=(
            f"supported if the 95 % interval of the share lies above {share_bound(half)}, "
            "contradicted if below"
        ),
        meaning=sentence([_told(network, found, half)], LEAD),
        next_step={
            Verdict.SUPPORTED: "Lower the learning rate, and see whether barriers and jumps go.",
            Verdict.CONTRADICTED: (
                "Look at what the training loss does not see: batch-norm statistics and noise."
            ),
            Verdict.INCONCLUSIVE: "Record more seeds or epochs: each jump is one observation.",
        }[verdict],
        caveats=(ONE_BATCH, JUMPS_ONLY, "A barrier narrower than the grid stays unseen."),
        statement=without_network(HYPOTHESIS),
        evidence=("between-epochs", "surroundings", "barriers"),
    )


def _share(found: list[Barrier]) -> Estimate:
    """The share of jumps that cross a barrier."""
    known = [one for one in found if np.isfinite(one.height)]
    crossed = int(sum(one.height > 0 for one in known))
    low, high = wilson_interval(crossed, len(known)) if known else (None, None)
    return Estimate(
        "share of jumps that cross a barrier",
        100 * crossed / len(known) if known else None,
        None if low is None else 100 * low,
        None if high is None else 100 * high,
        "%",
        method=f"Wilson interval over {plural(len(known), 'jump')}",
    )


def _verdict(found: list[Barrier], half: float) -> Verdict:
    share = _share(found)
    return verdict_above(share.low, share.high, 100 * half)


def _told(network: str, found: list[Barrier], half: float) -> NetworkStatement:
    clause = {
        Verdict.SUPPORTED: "most jumps cross a barrier of the training loss",
        Verdict.CONTRADICTED: "most jumps cross no barrier of the training loss",
        Verdict.INCONCLUSIVE: (
            "it cannot be told whether most jumps cross a barrier of the training loss"
        ),
    }[_verdict(found, half)]
    share = _share(found)
    if share.value is None:
        return NetworkStatement(
            network, clause, detail="it was not measured between any two epochs"
        )
    known = [one for one in found if np.isfinite(one.height)]
    crossed = f"{sum(one.height > 0 for one in known)} of {plural(len(known), 'jump')}"
    return NetworkStatement(network, clause, f"{crossed}, {share.words}")


def _estimates(found: list[Barrier]) -> tuple[Estimate, ...]:
    heights = [one.height for one in found if np.isfinite(one.height)]
    return (
        _share(found),
        Estimate(
            "median height, negative where there is no barrier",
            float(np.median(heights)) if heights else None,
            unit="nats",
            method="over jumps; no interval",
        ),
    )


def _figures(
    networks: list[str], sliced: list[Run], findings: tuple[Finding, ...], table: pd.DataFrame
) -> tuple[Figure, ...]:
    slices = pd.concat(
        [one.table(SLICES).assign(network=one.network, seed=seed_label(one)) for one in sliced],
        ignore_index=True,
    ) if sliced else pd.DataFrame({"direction": []})  # fmt: skip
    shares = [
        Said(
            "{share} of the jumps of {network}",
            share=with_unit(number(finding.estimates[0].value), "%", " ")
            if finding.estimates[0].value
            else Said("none"),
            network=str(finding.network),
        )
        for finding in findings
        if finding.estimates[0].value is not None
    ]
    figures = (
        between_epochs_figure(slices[slices["direction"] == BETWEEN], shares),
        surroundings_figure(slices[slices["direction"] != BETWEEN]),
        sharpness_figure(networks, table),
    )
    return tuple(figure for figure in figures if figure is not None)


def _barriers(found: dict[str, list[Barrier]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": one.network,
                "seed": one.seed,
                "into epoch": one.epoch,
                "loss before (nats)": one.before,
                "loss after (nats)": one.after,
                "highest between (nats)": one.highest,
                "height (nats)": one.height,
            }
            for barriers_ in found.values()
            for one in barriers_
        ]
    )


def _sharpness(runs: list[Run]) -> pd.DataFrame:
    frames = [
        one.table(SHARPNESS).assign(network=one.network, seed=seed_label(one)) for one in runs
    ]
    columns = ["network", "seed", "epoch", "gradient_norm", "curvature", "images"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame()


ANALYSIS = Analysis(
    key="loss_slices",
    title="Training loss around the weights",
    question="What does the training loss look like around the weights, and across jumps?",
    run=run,
    background=(
        "The loss is a surface over all weights; a slice shows its height along a line, and "
        "a barrier between two points is a place on it that is higher than both ends."
    ),
    order=70,
)
