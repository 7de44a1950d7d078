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
from analyses.wording.numbers import number, percent, share_bound
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
    figure = Figure(
        key="overview",
        title=_title(shown),
        caption=_caption(shown, false_discovery_rate),
        alt=_alt(shown),
        draw=partial(draw_overview, experiment.networks, shown),
        narrow=partial(draw_overview, experiment.networks, shown, narrow=True),
    )
    return AnalysisResult(
        summary=f"{_gradients(shown)}{_falls(shown)}.",
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


def _title(shown: list[NetworkOverview]) -> str:
    """What the eye sees first: where accuracy falls, or else what the gradient does."""
    tested = [one for one in shown if one.changes]
    if not tested:
        return _gradients(shown)
    counts = [int((one.marked["change"] < 0).sum()) for one in tested]
    said = [
        f"at {count or 'none'} of {changes} in {one.network}"
        for count, one in zip(counts, tested, strict=True)
        for changes in [plural(one.changes, "change") if one is tested[0] else one.changes]
    ]
    return f"Accuracy falls beyond sampling noise {listing(said)}"


def _caption(shown: list[NetworkOverview], false_discovery_rate: float) -> str:
    """What is drawn, from top to bottom, in short sentences."""
    below = f"{_below(shown)}{next((one.bins.note for one in shown if one.bins.gathered), '')}"
    if not any(one.curves["accuracy"].notna().any() for one in shown):
        return below[0].upper() + below[1:]
    parts = [_above(shown)]
    if any(one.changes for one in shown):
        parts.append(
            "Triangles: changes beyond sampling noise (McNemar's exact test, adjusted after "
            f"Benjamini & Hochberg within {share_bound(false_discovery_rate)})."
        )
    if any(one.marked["fresh_change"].notna().any() for one in shown):
        parts.append(
            "Bars: each of these split into the change with fresh statistics (the weights) and the "
            "rest (stale statistics)."
        )
    parts.append(f"Below: {below}")
    if any(one.changes for one in shown):
        gone = ", short if gone with fresh statistics"
        parts.append(
            "Vertical lines repeat the changes: falls solid, rises dotted"
            f"{gone if any(one.re_estimated for one in shown) else ''}."
        )
    return " ".join(parts)


def _above(shown: list[NetworkOverview]) -> str:
    seeds = max(one.curves["seed"].nunique() for one in shown)
    spread = "thin lines: seeds" if seeds > 1 else "band: Wilson's 95 % interval"
    fresh = ""
    if any(one.curves["fresh"].notna().any() for one in shown):
        fresh = (
            ", and the same weights with fresh batch-norm statistics, computed anew on training "
            "images (dashed)"
        )
    return f"Above: validation accuracy (solid; {spread}){fresh}."


def _below(shown: list[NetworkOverview]) -> str:
    ruled = any(stage_boundaries(one.stages) for one in shown) or not any(
        one.bins.gathered or len(one.stages) > 1 for one in shown
    )
    lines = (
        " Horizontal lines separate output shapes: between these, sizes do not compare."
        if ruled
        else ""
    )
    return (
        "root mean square of the gradient with respect to the output of each layer with weights, "
        f"median over steps and seeds.{lines}"
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
