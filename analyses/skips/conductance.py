"""How much of a prediction comes through the skips, and how much through the branches?

At each residual addition, conductance splits the logit of the predicted class into a part from the
skip and a part from the branch. That most comes through the skips is contradicted by a share below
one half.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme
from analyses.reading.extremes import extreme_rows
from analyses.reading.predictions import duplicate_images
from analyses.reading.probe_tables import last_epoch
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Length, Verdict
from analyses.statistics import Array
from analyses.statistics.bootstrap import RESAMPLES, image_weights
from analyses.statistics.estimates import estimate_of
from analyses.statistics.means import MIN_SEEDS, Mean, mean_over_steps
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number, percent, share_bound
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said, message
from gradflow.runs.reading.run import Experiment, Run

TABLE = "conductance"
HALF = 0.5
HYPOTHESIS = "Most of the conductance[ of {}] goes through the skips."
LEAD = "their mean share of the conductance is {}"
MAX_COMPLETENESS_ERROR = 0.05
MIN_IMAGES = 8  # an interval over fewer images says next to nothing
BASELINE = (
    "Conductance depends on its baseline, here a black image. It describes the forward function, "
    "not how gradients trained it."
)
SOURCES = (
    "Dhamdhere et al. 2018, How important is a neuron? (conductance, completeness)",
    "Sundararajan et al. 2017, Axiomatic attribution for deep networks",
)


@dataclass(frozen=True)
class NetworkConductance:
    """The conductance of all seeds of one network, at the last epoch measured.

    Fields:
        network: its name.
        images: number of images of the first seed.
        blocks: columns layer, share, low, high. The share is the skip's conductance over that of
            skip and branch, each summed over images.
        mean: the share averaged over blocks.
        error: median completeness error.
    """

    network: str
    images: int
    blocks: pd.DataFrame
    mean: Mean
    error: float


def conductance_by_image(run: Run) -> tuple[pd.Index, Array, Array]:
    """The conductance of each skip, and of skip and branch together, in `run`.

    Returns: names of the additions in order of execution; two arrays of shape [images, additions].
    """
    rows = last_epoch(run.table(TABLE))
    rows = rows[~rows["image"].isin(duplicate_images(run))].drop_duplicates(["layer", "image"])
    order = {name: place for place, name in enumerate(run.layers["layer"])}
    names = sorted(dict.fromkeys(rows["layer"]), key=lambda name: order.get(name, len(order)))
    wide = [
        rows.assign(both=rows["skip"] + rows["branch"])
        .set_index(["image", "layer"])[column]
        .unstack("layer")
        .reindex(columns=names)
        for column in ("skip", "both")
    ]
    kept = np.isfinite(wide[0]).all(axis=1) & np.isfinite(wide[1]).all(axis=1)
    skip, both = (one[kept].to_numpy(dtype=float) for one in wide)
    return pd.Index(names), skip, both


def network_conductance(network: str, runs: list[Run]) -> NetworkConductance:
    """Reduce the conductance of the runs of one network; each run recorded some."""
    parts = [conductance_by_image(run) for run in runs]
    names = parts[0][0]
    parts = [part for part in parts if part[0].equals(names) and len(part[1])]
    values = [_ratio(skip.sum(axis=0), both.sum(axis=0)) for _, skip, both in parts]
    draws = [_resampled(skip, both, place) for place, (_, skip, both) in enumerate(parts)]
    rows = []
    for place, name in enumerate(names):
        mean = _mean([one[place] for one in values], [one[:, place] for one in draws], parts)
        rows.append({"layer": name, "share": mean.value, "low": mean.low, "high": mean.high})
    errors = pd.concat([last_epoch(run.table(TABLE))["completeness_error"] for run in runs])
    return NetworkConductance(
        network=network,
        images=len(parts[0][1]) if parts else 0,
        blocks=pd.DataFrame(rows).astype({"share": float, "low": float, "high": float}),
        mean=_mean([one.mean() for one in values], [one.mean(axis=1) for one in draws], parts),
        error=float(errors.median()),
    )


def _ratio(skip: Array, both: Array) -> Array:
    shares = np.full(both.shape, np.nan)
    np.divide(skip, both, out=shares, where=both != 0)
    return shares


def _resampled(skip: Array, both: Array, seed: int) -> Array:
    """Shares of resampled images, shape [resamples, additions]; NaN if the sum changes sign."""
    weights = image_weights(len(skip), seed=seed)
    totals = weights @ both
    # A ratio whose denominator may be 0 has no interval: its sign must not change in any resample.
    same_sign = (np.sign(totals) == np.sign(both.sum(axis=0))).all(axis=0)
    return np.where(same_sign, _ratio(weights @ skip, totals), np.nan)


def _mean(
    values: list[float], draws: list[Array], parts: list[tuple[pd.Index, Array, Array]]
) -> Mean:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return Mean(None, None, None, "no finite share")
    if len(finite) >= MIN_SEEDS:
        return mean_over_steps([[value] for value in finite])
    images = min(len(skip) for _, skip, _ in parts)
    value, drawn = float(np.mean(finite)), np.mean(draws, axis=0)
    if images < MIN_IMAGES or not np.isfinite(drawn).all():
        return Mean(value, None, None, f"no interval from {plural(images, 'image')}")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Mean(value, float(low), float(high), f"bootstrap over {plural(images, 'image')}")


def run(
    experiment: Experiment, half: float = HALF, complete: float = MAX_COMPLETENESS_ERROR
) -> AnalysisResult:
    """Compute the skips' share of the conductance, by block.

    `half` is the share above which the skips are said to carry most. There is no verdict if the
    median completeness error exceeds `complete`.

    Raises `NotApplicableError` if no run recorded conductance.
    """
    networks = by_network(runs_with(experiment, TABLE, "conductance of residual additions"))
    found = [network_conductance(name, runs) for name, runs in networks.items()]
    findings = tuple(_finding(one, half, complete) for one in found)
    together = sentence([_told(one, half, complete) for one in found], LEAD)
    return AnalysisResult(
        summary=together,
        findings=findings,
        figures=(_figure(experiment.networks, found, half),),
        tables=(
            extreme_rows(
                "blocks",
                "The skips' share of the conductance",
                pd.concat(
                    [one.blocks.assign(network=one.network) for one in found], ignore_index=True
                )[["network", "layer", "share", "low", "high"]].rename(
                    columns={"low": "95 % low", "high": "95 % high"}
                ),
                "share",
            ),
        ),
        method=(
            "Conductance of skip and branch at each addition for the logit of the predicted class, "
            "from a black baseline to the validation image; share = sum over images of the skip's "
            f"over the sum of both. Interval: bootstrap over images ({RESAMPLES:,} resamples), or "
            "Student's over three and more seeds. Completeness error: |skip + branch - difference "
            "of logits| / |difference|, zero for an exact integral."
        ),
        sources=SOURCES,
        together={"conductance": together},
    )


def _verdict(one: NetworkConductance, half: float, complete: float) -> Verdict:
    if not one.error <= complete:
        return Verdict.INCONCLUSIVE
    return verdict_above(one.mean.low, one.mean.high, half)


def _told(one: NetworkConductance, half: float, complete: float) -> NetworkStatement:
    most = "most of what predictions rest on comes through the"
    clause = {
        Verdict.SUPPORTED: f"{most} skips",
        Verdict.CONTRADICTED: f"{most} branches, not the skips",
        Verdict.INCONCLUSIVE: f"it cannot be told whether {most} skips",
    }[_verdict(one, half, complete)]
    share = estimate_of("", one.mean)
    if share.value is None:
        return NetworkStatement(one.network, clause, detail="no share could be computed")
    rough = "" if one.error <= complete else (
        f" (median completeness error {percent(one.error)})"
    )  # fmt: skip
    return NetworkStatement(
        one.network, clause, f"{share.words} over {plural(len(one.blocks), 'block')}{rough}"
    )


def _finding(one: NetworkConductance, half: float, complete: float) -> Finding:
    whole = one.error <= complete
    return Finding(
        key=slug(f"conductance-{one.network}"),
        network=one.network,
        hypothesis=with_network(HYPOTHESIS, one.network),
        contradicted_by=f"A mean share of the skips whose interval lies below {number(half)}.",
        verdict=_verdict(one, half, complete),
        estimates=(
            estimate_of("mean share of the skips", one.mean),
            Estimate(
                "median completeness error",
                100 * one.error if np.isfinite(one.error) else None,
                unit="%",
                method="over additions and images; no interval",
            ),
        ),
        threshold=(
            f"supported if the 95 % interval of the mean share lies above {number(half)}; tested "
            f"only if the median completeness error is at most {share_bound(complete)}"
        ),
        meaning=sentence([_told(one, half, complete)], LEAD),
        next_step=(
            "Compare with the skips' share of the gradient, block by block."
            if whole
            else "Integrate in more steps: the parts do not add up to the logit."
        ),
        caveats=(
            BASELINE,
            "If skip and branch oppose each other, one share exceeds 1 and the other is negative.",
        ),
        statement=without_network(HYPOTHESIS),
        evidence=("conductance-by-block", "blocks"),
    )


def _figure(networks: list[str], found: list[NetworkConductance], half: float) -> Figure:
    said = [
        Said("{amount} in {network}", amount=number(one.mean.value), network=one.network)
        for one in found
        if one.mean.value is not None
    ]
    title = (
        Said("The skips' mean share of the conductance is {shares}", shares=listing(said))
        if said
        else message("No share of the conductance could be computed")
    )
    return Figure(
        key="conductance-by-block",
        title=title,
        caption=(
            "The skip's share of the conductance at each residual addition, over the images at the "
            f"last epoch measured, with 95 % intervals. Dotted: {number(half)}."
        ),
        alt=f"The skip's share of the conductance by block. {title}.",
        draw=partial(_draw, networks, found, half),
        length=Length.FULL,
    )


@theme.themed
def _draw(networks: list[str], found: list[NetworkConductance], half: float) -> Drawing:
    styles = theme.styles(networks)
    labels = ("skip's share of the conductance", "block, from the input")
    with panels.panel(2.7, *labels) as (figure, axis):
        for one in found:
            places = np.arange(1, len(one.blocks) + 1)
            style = styles[one.network]
            ends = (one.blocks["low"], one.blocks["high"])
            axis.vlines(places, *ends, color=style["color"], lw=1)
            axis.plot(places, one.blocks["share"], label=one.network, lw=0.9, **style)
        panels.level_line(axis, half, style=":")
    return figure


ANALYSIS = Analysis(
    key="conductance",
    title="Predictions through the skips",
    question="How much of a prediction comes through the skips?",
    run=run,
    background=(
        "Conductance divides a prediction among the parts of a network: here, at each "
        "residual addition, between what came by the skip and what came by the branch."
    ),
    order=150,
)
