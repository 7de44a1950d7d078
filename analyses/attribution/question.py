"""What do the networks look at: which pixels do their predictions rest on?

Shows integrated gradients and Grad-CAM of the same validation images for every network of a seed.
That two networks weigh pixels alike is contradicted by attributions whose ranks hardly correlate.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from analyses.attribution.figures import first_of_class_figure, most_confident_figure
from analyses.attribution.measure import (
    INTEGRATED_GRADIENTS,
    TABLE,
    AttributedImage,
    attributed_images,
    rank_correlation,
)
from analyses.reading.matching import same_images
from analyses.reading.runs import by_network, runs_with, seed_label
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.statistics import Array
from analyses.statistics.bootstrap import RESAMPLES
from analyses.statistics.estimates import as_percent, estimate_of
from analyses.statistics.means import Mean
from analyses.statistics.verdicts import verdict_above, verdict_below
from analyses.wording.numbers import number, share_bound
from analyses.wording.phrases import plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Said
from gradflow.runs.reading.run import Experiment, Run

MAX_COMPLETENESS_ERROR = 0.05
MIN_CORRELATION = 0.5
LEAD = "the median completeness error of the integrated gradients is {}"
MIN_IMAGES = 5  # an interval over fewer images says next to nothing
FEW_IMAGES = (
    "These are a few images, most of them the first of their class. They illustrate, and an "
    "interval over them holds for such images only."
)
BASELINE = (
    "Integrated gradients depend on their baseline, here a black image: black pixels get zero."
)
PIXELS = (
    "The gradient of a deep network fluctuates from pixel to pixel: two networks may agree on a "
    "region and not on its pixels."
)
HYPOTHESIS = "Integrated gradients[ of {}] add up to the difference of logits within {bound}."
SOURCES = (
    "Sundararajan et al. 2017, Axiomatic attribution for deep networks",
    "Selvaraju et al. 2017, Grad-CAM",
    "Kokhlikyan et al. 2020, Captum",
)


def run(
    experiment: Experiment, complete: float = MAX_COMPLETENESS_ERROR, alike: float = MIN_CORRELATION
) -> AnalysisResult:
    """Show the attributions; test whether they add up, and how alike those of two networks are.

    `complete` is the largest median completeness error at which integrated gradients are said to
    add up. `alike` is the smallest mean rank correlation at which two networks are said to weigh
    pixels alike.

    Raises `NotApplicableError` if no run recorded pictures.
    """
    runs = runs_with(experiment, TABLE, "attribution pictures")
    pictures = [(run, attributed_images(run)) for run in runs]
    networks = {
        name: [one for run, looked in pictures if run.network == name for one in looked]
        for name in by_network(runs)
    }
    sums = tuple(_completeness_finding(name, looked, complete) for name, looked in networks.items())
    add_up = sentence([_told(name, looked, complete) for name, looked in networks.items()], LEAD)
    pairs = tuple(
        _pair_finding(first, second, _rank_correlations(pictures, first, second), alike)
        for first, second in combinations(networks, 2)
    )
    seed, shown = _first_seed(pictures)
    figures = (first_of_class_figure(shown, seed), most_confident_figure(shown, seed))
    return AnalysisResult(
        summary=" ".join([*(finding.meaning for finding in pairs), add_up]),
        findings=(*pairs, *sums),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=(Table("images", "Images pictured", _table(pictures)),),
        method=(
            "Integrated gradients of the predicted class's logit f along the straight path from a "
            "black image x' to the image x, by captum: (x - x') times the mean gradient, summed "
            "over color. Completeness error: |sum - (f(x) - f(x'))| / |f(x) - f(x')|. Agreement of "
            "two networks on an image: Spearman's rho of their integrated gradients, signs "
            "included, over the pixels that are not black, where both predict the same class. "
            "Grad-CAM: maps of one block, weighed by their mean gradients and rectified. "
            f"Intervals: bootstrap over images, {RESAMPLES:,} resamples, from "
            f"{MIN_IMAGES} images on."
        ),
        sources=SOURCES,
        together={"completeness": add_up},
    )


def over_images(values: list[float], median: bool) -> Mean:
    """Median or mean over images, with a percentile bootstrap interval."""
    kept = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    if not len(kept):
        return Mean(None, None, None, "no finite value was recorded")
    centre = np.median if median else np.mean
    if len(kept) < MIN_IMAGES:
        method = f"no interval from {plural(len(kept), 'image')}, {MIN_IMAGES} needed"
        return Mean(float(centre(kept)), None, None, method)
    draws = np.random.default_rng(0).integers(0, len(kept), size=(RESAMPLES, len(kept)))
    resampled: Array = centre(kept[draws], axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    method = f"bootstrap over {plural(len(kept), 'image')}"
    return Mean(float(centre(kept)), float(low), float(high), method)


def _rank_correlations(
    pictures: list[tuple[Run, list[AttributedImage]]], first: str, second: str
) -> list[float]:
    """The rank correlation on every image that both networks recorded with the same seed."""
    by_run = {(run.network, run.seed): (run, looked) for run, looked in pictures}
    found = []
    for (name, seed), (run, looked) in by_run.items():
        partner = by_run.get((second, seed))
        # Equal image numbers mean the same image only within one data set.
        if name != first or partner is None or not same_images(run, partner[0]):
            continue
        others = {one.image: one for one in partner[1]}
        found += [
            rank_correlation(one, others[one.image])
            for one in looked
            if one.image in others
            and all(INTEGRATED_GRADIENTS in each.maps for each in (one, others[one.image]))
        ]
    return found


def _pair_finding(first: str, second: str, found: list[float], alike: float) -> Finding:
    mean = over_images(found, median=False)
    estimate = estimate_of("mean rank correlation over the pixels of an image", mean)
    verdict = verdict_above(mean.low, mean.high, alike)
    words = {
        Verdict.SUPPORTED: f"{first} and {second} weigh the pixels of an image much alike",
        Verdict.CONTRADICTED: f"{first} and {second} weigh the pixels of an image differently",
        Verdict.INCONCLUSIVE: (
            f"Whether {first} and {second} weigh the pixels of an image alike cannot be told"
        ),
    }[verdict]
    said = "no image was recorded for both with the same prediction" if mean.value is None else (
        f"the ranks of their integrated gradients correlate by {estimate.words} over "
        f"{plural(int(np.isfinite(found).sum()), 'image')}"
    )  # fmt: skip
    return Finding(
        key=slug(f"alike-{first}-{second}"),
        network=None,
        hypothesis=Said(
            "{first} and {second} weigh the pixels of an image alike.", first=first, second=second
        ),
        contradicted_by=f"A mean rank correlation whose interval lies below {number(alike)}.",
        verdict=verdict,
        estimates=(estimate,),
        threshold=(
            "supported if the 95 % interval of the mean correlation lies above "
            f"{number(alike)}, contradicted if below"
        ),
        meaning=f"{words}: {said}.",
        next_step=(
            "Compare two seeds of one network: what differs by the seed alone sets the scale."
        ),
        caveats=(FEW_IMAGES, BASELINE, PIXELS),
        evidence=("first-of-class", "most-confident", "images"),
    )


def _completeness_finding(network: str, looked: list[AttributedImage], complete: float) -> Finding:
    verdict = _adds_up(looked, complete)
    return Finding(
        key=slug(f"completeness-{network}"),
        network=network,
        hypothesis=with_network(HYPOTHESIS, network, bound=share_bound(complete)),
        contradicted_by=f"A median error whose interval lies above {share_bound(complete)}.",
        verdict=verdict,
        estimates=(_error(looked),),
        threshold=(
            f"supported if the 95 % interval of the median lies below {share_bound(complete)}, "
            "contradicted if above"
        ),
        meaning=sentence([_told(network, looked, complete)], LEAD),
        next_step=(
            "Read the pictures as they are."
            if verdict is Verdict.SUPPORTED
            else "Integrate in more steps before reading the pictures closely."
        ),
        caveats=(
            FEW_IMAGES,
            "If the image's logit hardly differs from that of the black image, the relative error "
            "is large for any number of steps.",
        ),
        statement=without_network(HYPOTHESIS, bound=share_bound(complete)),
        evidence=("images",),
    )


def _error(looked: list[AttributedImage]) -> Estimate:
    errors = over_images([one.completeness_error for one in looked], median=True)
    return estimate_of("median completeness error", errors, "%", as_percent)


def _adds_up(looked: list[AttributedImage], complete: float) -> Verdict:
    error = over_images([one.completeness_error for one in looked], median=True)
    return verdict_below(error.low, error.high, complete)


def _told(network: str, looked: list[AttributedImage], complete: float) -> NetworkStatement:
    clause = {
        Verdict.SUPPORTED: "the pictures add up to the logits",
        Verdict.CONTRADICTED: "the pictures do not add up to the logits",
        Verdict.INCONCLUSIVE: "it cannot be told whether the pictures add up to the logits",
    }[_adds_up(looked, complete)]
    error = _error(looked)
    if error.value is None:
        return NetworkStatement(network, clause, detail="no integrated gradients were recorded")
    return NetworkStatement(network, clause, error.words)


def _first_seed(
    pictures: list[tuple[Run, list[AttributedImage]]],
) -> tuple[str, dict[str, list[AttributedImage]]]:
    """The seed of the first run, and the images of every network with this seed and data set."""
    first = pictures[0][0]
    return seed_label(first), {
        run.network: looked
        for run, looked in pictures
        if run.seed == first.seed and same_images(first, run)
    }


def _table(pictures: list[tuple[Run, list[AttributedImage]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": run.network,
                "seed": seed_label(run),
                "image": one.image,
                "rule": one.rule,
                "target": one.target,
                "prediction": one.prediction,
                "probability": one.probability,
                "completeness error": one.completeness_error,
            }
            for run, looked in pictures
            for one in looked
        ]
    )


ANALYSIS = Analysis(
    key="attribution",
    title="Attribution",
    question="What do the networks look at?",
    run=run,
    background=(
        "An attribution gives every pixel a share of a prediction; it says what that "
        "prediction rests on, not whether it is right."
    ),
    order=200,
)
