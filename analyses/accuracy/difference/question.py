"""How far is the residual network ahead of the plain one, and how many seeds would settle it?

Runs of one seed have the same split, the same order of the images and the same initial weights of
common layers. They are compared on the same images. Contradicted by a mean difference over epochs
whose interval lies below 0.
"""

import numpy as np
import pandas as pd

from analyses.accuracy.difference import figures as comparison_figures
from analyses.accuracy.difference.findings import finding_at_last_epoch, finding_over_epochs
from analyses.accuracy.difference.measure import MEAN_ROW, PairComparison, compare_pair
from analyses.accuracy.difference.seeds_needed import power_finding, power_table
from analyses.reading.pairs import residual_pairs
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Table
from analyses.statistics.bootstrap import RESAMPLES
from analyses.statistics.means import MIN_SEEDS
from analyses.statistics.power import ALPHA, POWER
from analyses.wording.phrases import slug
from gradflow.runs.reading.run import Experiment

SMALLEST_DIFFERENCE = 0.02
SOURCES = (
    "McNemar 1947, Note on the sampling error of the difference between correlated proportions",
    "van der Vaart & Wellner 1996, Weak convergence and empirical processes, section 2.9 "
    "(multiplier bootstrap)",
    "Davison & Hinkley 1997, Bootstrap methods and their application, section 3.8 (hierarchical "
    "data)",
    "Cohen 1988, Statistical power analysis for the behavioral sciences, section 2.5",
    "Hoenig & Heisey 2001, The abuse of power (why the measured size is no yardstick)",
)


def run(
    experiment: Experiment,
    smallest_difference: float = SMALLEST_DIFFERENCE,
    power: float = POWER,
    alpha: float = ALPHA,
) -> AnalysisResult:
    """Compare each residual network with its plain one, seed by seed.

    `smallest_difference` is the smallest one worth finding, as a fraction; `power` the wanted
    probability of finding it with a paired t-test at level `alpha`.

    Raises `NotApplicableError` without a pair that shares a seed and has validation accuracies.
    """
    matched = [
        one
        for pair in residual_pairs(experiment)
        if (one := compare_pair(experiment, pair)) is not None
    ]
    if not matched:
        raise NotApplicableError(
            "this question compares a residual and a plain network of one seed, and no such pair "
            "recorded validation accuracy at the same epochs"
        )
    ahead = [
        finding
        for one in matched
        for finding in (finding_over_epochs(one), finding_at_last_epoch(one))
    ]
    enough = [
        power_finding(one.pair, one.curve.means, smallest_difference, power, alpha)
        for one in matched
    ]
    figures = [
        figure for one in matched for figure in _figures(one, smallest_difference, power, alpha)
    ]
    tables = [table for one in matched for table in _tables(one, smallest_difference, power, alpha)]
    return AnalysisResult(
        summary=" ".join(finding.meaning for finding in ahead),
        findings=(*ahead, *enough),
        figures=tuple(figures),
        tables=tuple(tables),
        method=_method(power, alpha),
        sources=SOURCES,
    )


def _figures(
    one: PairComparison, smallest_difference: float, power: float, alpha: float
) -> list[Figure]:
    drawn = [comparison_figures.by_epoch_figure(one.pair, one.curve, one.re_estimated_curve)]
    if one.curve.means.seed_sd is not None:
        means = one.curve.means
        drawn.append(
            comparison_figures.power_figure(one.pair, means, smallest_difference, power, alpha)
        )
    return drawn


def _tables(
    one: PairComparison, smallest_difference: float, power: float, alpha: float
) -> list[Table]:
    name, key = f"{one.pair.residual} less {one.pair.plain}", slug(one.pair.residual)
    tables = [
        Table(f"by-epoch-{key}", f"{name}, percentage points of accuracy", _by_epoch(one)),
        Table(f"by-seed-{key}", f"{name}, percentage points, seed by seed", _by_seed(one)),
    ]
    if one.curve.means.seed_sd is not None:
        curves = {"running": one.curve, "re-estimated": one.re_estimated_curve}
        known = {label: curve.means for label, curve in curves.items() if curve is not None}
        frame = power_table(known, smallest_difference, power, alpha)
        tables.append(Table(f"power-{key}", f"Seeds needed to settle {name}", frame))
    return tables


def _by_epoch(one: PairComparison) -> pd.DataFrame:
    frames = []
    curves = {"running": one.curve, "re-estimated": one.re_estimated_curve}
    for label, curve in curves.items():
        if curve is None:
            continue
        frame = 100 * comparison_figures.curve_frame(curve)
        frame.index = pd.Index(curve.epochs, name="epoch")
        names = {"value": label, "low": "95 % low", "high": "95 % high"}
        names |= {"band_low": "band low", "band_high": "band high"}
        frames.append(frame.rename(columns={old: f"{label}, {new}" for old, new in names.items()}))
    joined = pd.concat(frames, axis=1).rename(
        columns={f"{label}, {label}": label for label in curves}
    )
    return joined.sort_index().reset_index().dropna(axis=1, how="all")


def _by_seed(one: PairComparison) -> pd.DataFrame:
    last = len(one.curve.epochs) - 1
    columns = {"mean over epochs": MEAN_ROW, "last common epoch": last}
    frame = pd.DataFrame(
        {name: 100 * one.curve.means.by_seed[:, row] for name, row in columns.items()}
    )
    frame.insert(0, "seed", [both.seed for both in one.scores])
    if one.re_estimated_curve is not None:
        fresh = dict(
            zip(
                (both.seed for both in one.re_estimated_scores),
                100 * one.re_estimated_curve.means.by_seed[:, MEAN_ROW],
                strict=True,
            )
        )
        frame["mean over epochs, re-estimated"] = frame["seed"].map(fresh).astype(np.float64)
    return frame


def _method(power: float, alpha: float) -> str:
    return (
        "d(e, s) is the accuracy of the residual network less that of the plain one at epoch e in "
        "seed s, on the same images; the main number is its mean over epochs, the area under the "
        f"difference. Bootstrap with {RESAMPLES:,} resamples: images are drawn with replacement, "
        "the same ones for both networks, all epochs and all seeds that have them; seeds are "
        "drawn by normal multipliers, their variance s^2 reduced by w, the variance from sampled "
        "images alone, so that images do not count twice; the sum is divided by "
        "sqrt(chi^2/(S - 1)) for S seeds, which gives Student's interval if w = 0, and a wider one "
        "than necessary if seeds differ little. With fewer than "
        f"{MIN_SEEDS} seeds only images are drawn. The simultaneous band has one height, the 95 % "
        "quantile of the largest deviation over epochs. At the last epoch of a single seed: "
        "McNemar's exact test too. Seeds needed: smallest S at which a two-sided paired t-test at "
        f"{alpha:g} has a power of {power:g}, by the noncentral t distribution with noncentrality "
        "sqrt(S) d / s; its interval from the chi-square interval of s."
    )


ANALYSIS = Analysis(
    key="matched_comparison",
    title="Difference in accuracy",
    question=(
        "How far is the residual network ahead of the plain one, and how many seeds would settle "
        "it?"
    ),
    run=run,
    background=(
        "Two networks trained with the same seed see the same images in the same order, so "
        "their remaining difference is closer to the effect of the network itself."
    ),
    order=30,
)
