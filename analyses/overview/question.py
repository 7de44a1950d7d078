"""What happens to accuracy and gradients, over depth and epochs, in one picture?

Description only: every statement is tested in another analysis.
"""

from functools import partial

from analyses.accuracy.jumps import FALSE_DISCOVERY_RATE
from analyses.overview.figures import draw_overview, stage_boundaries
from analyses.overview.measure import NetworkOverview, network_overview
from analyses.overview.own_run import own_figure, own_run
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import listing, plural
from gradflow.runs.reading.run import Experiment, Run

MOST_OWN_RUNS = 3  # one below the other; of more, an overview by network and epoch is clearer


def run(
    experiment: Experiment, false_discovery_rate: float = FALSE_DISCOVERY_RATE
) -> AnalysisResult:
    """Accuracy by epoch over gradients by depth and epoch, network by network.

    `false_discovery_rate` is that of the marked changes of accuracy.

    Raises `NotApplicableError` if no network has gradients at two layers with weights.
    """
    networks = by_network(runs_with(experiment, "gradients", "gradients by layer"))
    if experiment.is_own and len(experiment.runs) <= MOST_OWN_RUNS:
        return _of_own_runs([run for runs in networks.values() for run in runs])
    shown, reasons = [], []
    for name, runs in networks.items():
        try:
            shown.append(network_overview(name, runs, false_discovery_rate))
        except NotApplicableError as reason:
            reasons.append(str(reason))
    if not shown:
        raise NotApplicableError("; ".join(reasons))
    title = f"{_gradients(shown)}{_falls(shown)}"
    figure = Figure(
        key="overview",
        title=title,
        caption=_caption(shown, false_discovery_rate),
        alt=_alt(shown),
        draw=partial(draw_overview, experiment.networks, shown),
        narrow=partial(draw_overview, experiment.networks, shown, narrow=True),
    )
    return AnalysisResult(
        summary=f"{title}.",
        findings=(),
        figures=(figure,),
        tables=(),
        method=(
            "Medians over steps and seeds of the root mean square of the gradient with respect to "
            "the output of each layer with weights; the factor over the depth is that of the "
            "gradient profile, and the marked changes are those of the jumps of accuracy."
        ),
        sources=(),
    )


def _of_own_runs(runs: list[Run]) -> AnalysisResult:
    figure = own_figure([own_run(run) for run in runs])
    return AnalysisResult(
        summary=f"{figure.title}.",
        findings=(),
        figures=(figure,),
        tables=(),
        method="Medians over neighbouring steps; what was found is told in the health check.",
        sources=(),
    )


def _gradients(shown: list[NetworkOverview]) -> str:
    known = [one for one in shown if one.factor is not None]
    if not known:
        return "The factor of the gradient over the depth could not be computed"
    verbs = [_verb(one) for one in known]
    # If all networks have the same verb, it is written once.
    said = [
        f"{verb + ' ' if place == 0 or len(set(verbs)) > 1 else ''}{_times(one)} in {one.network}"
        for place, (verb, one) in enumerate(zip(verbs, known, strict=True))
    ]
    return f"From the last layer to the first the gradient {listing(said)}"


def _verb(one: NetworkOverview) -> str:
    """What the gradient does over the depth; the interval decides."""
    if one.low is None or one.high is None:
        return "changes"
    if one.high < 1:
        return "shrinks"
    return "grows" if one.low > 1 else "changes by a factor"


def _times(one: NetworkOverview) -> str:
    assert one.factor is not None
    if one.low is None or one.high is None:
        return f"{number(one.factor)} times (no interval)"
    if one.low <= 1 <= one.high:
        return f"between {number(one.low)} and {number(one.high)}"
    ends = (one.factor, one.low, one.high)
    if one.high < 1:
        ends = (1 / one.factor, 1 / one.high, 1 / one.low)
    return f"{number(ends[0])} times ({number(ends[1])} to {number(ends[2])})"


def _falls(shown: list[NetworkOverview]) -> str:
    tested = [one for one in shown if one.changes]
    if not tested:
        return ""
    falls = [one.marked[one.marked["change"] < 0] for one in tested]
    said = [
        f"at {len(own)} of {plural(one.changes, 'change')} in {one.network}"
        for one, own in zip(tested, falls, strict=True)
    ]
    left = ""
    if all(one.re_estimated for one in tested) and any(len(own) for own in falls):
        counts = [int((~own["stale"].astype(bool)).sum()) for own in falls]
        said_left = listing(list(map(str, counts))) if any(counts) else "none"
        left = f", {said_left} of them with re-estimated statistics too"
    return f"; accuracy falls beyond sampling noise {listing(said)}{left}"


def _caption(shown: list[NetworkOverview], false_discovery_rate: float) -> str:
    """At most three sentences: accuracy and its jumps, gradients, and the lines."""
    ruled = any(stage_boundaries(one.stages) for one in shown) or not any(
        one.bins.gathered or len(one.stages) > 1 for one in shown
    )
    lines = "horizontal lines separate output shapes, and " if ruled else ""
    below = (
        "root mean square of the gradient with respect to the output of each layer with weights, "
        f"median over steps and seeds; {lines}the title compares equal shapes only (95 % intervals "
        "in brackets)."
    )
    below += next((one.bins.note for one in shown if one.bins.gathered), "")
    if not any(one.curves["accuracy"].notna().any() for one in shown):
        return below[0].upper() + below[1:]
    seeds = max(one.curves["seed"].nunique() for one in shown)
    above = "Above: validation accuracy (solid" + (
        "; thin lines are seeds)" if seeds > 1 else ") with its Wilson 95 % interval"
    )
    if any(one.curves["fresh"].notna().any() for one in shown):
        above += ", and with batch-norm statistics re-estimated on training images (dashed)"
    if not any(one.changes for one in shown):
        return f"{above}. Below: {below}"
    gone = "; short: gone with re-estimated statistics"
    split = (
        "; bars split each into the change with re-estimated statistics (the weights) and the rest "
        "(stale statistics)"
    )
    parted = any(one.marked["fresh_change"].notna().any() for one in shown)
    return (
        f"{above}; triangles mark changes beyond sampling noise (McNemar's exact test, adjusted "
        "after Benjamini & Hochberg within "
        f"{percent(false_discovery_rate)}){split if parted else ''}. Below: {below} "
        "Vertical lines repeat the changes (falls solid, rises dotted"
        + (gone if any(one.re_estimated for one in shown) else "")
        + ")."
    )


def _alt(shown: list[NetworkOverview]) -> str:
    return " ".join(f"{_alt_accuracy(one)} {_alt_gradients(one)}" for one in shown)


def _alt_accuracy(one: NetworkOverview) -> str:
    mean = one.curves.groupby("epoch")["accuracy"].mean().dropna()
    if not len(mean):
        return f"{one.network}: no validation accuracy."
    falls = sorted(set(one.marked.loc[one.marked["change"] < 0, "epoch"]))
    marked = listing([str(epoch) for epoch in falls])
    return (
        f"{one.network}: validation accuracy goes from {percent(mean.iloc[0])} in epoch "
        f"{mean.index[0]:.0f} to {percent(mean.iloc[-1])} in epoch {mean.index[-1]:.0f}"
        + (f", with falls marked into epochs {marked}." if falls else ", with no fall marked.")
    )


def _alt_gradients(one: NetworkOverview) -> str:
    cells = one.gradients.where(one.gradients > 0).stack()
    if not len(cells):
        return "Its heat map is grey: no gradient is finite and nonzero."
    (deep, late), (high, there) = cells.idxmin(), cells.idxmax()
    return (
        f"Its heat map runs from {number(cells.min())} at depth {deep} in epoch {late} to "
        f"{number(cells.max())} at depth {high} in epoch {there}."
    )


ANALYSIS = Analysis(
    key="overview",
    title="Overview",
    question="What happens to accuracy and gradients, over depth and epochs, in one picture?",
    run=run,
    order=10,
)
