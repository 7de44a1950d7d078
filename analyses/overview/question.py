"""What happens to accuracy and gradients, over depth and epochs, in one picture?

Description only: every statement is tested in another analysis.
"""

from functools import partial

from analyses.accuracy.jumps import FALSE_DISCOVERY_RATE
from analyses.overview.figures import draw_overview, stage_boundaries
from analyses.overview.measure import NetworkOverview, network_overview
from analyses.overview.own_run import own_figure, own_run
from analyses.reading.depth_bins import first_note
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure
from analyses.wording.numbers import number, percent, share_bound
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Joined, Numeral, Said, message
from gradflow.runs.reading.run import Experiment, Run

_MAP_BELOW = message(
    "Below: root mean square of the gradient with respect to the output of each layer with "
    "weights, median over steps and seeds."
)
_MAP_ALONE = message(
    "Root mean square of the gradient with respect to the output of each layer with weights, "
    "median over steps and seeds."
)
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
    gradients, falls = _gradients(shown), _falls(shown)
    summary = Said("{gradients}; {falls}", gradients=gradients, falls=falls) if falls else gradients
    figure = Figure(
        key="overview",
        title=_title(shown),
        caption=_caption(shown, false_discovery_rate),
        alt=_alt(shown),
        draw=partial(draw_overview, experiment.networks, shown),
        narrow=partial(draw_overview, experiment.networks, shown, narrow=True),
    )
    return AnalysisResult(
        summary=Said("{summary}.", summary=summary),
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
        return Said("The factor of the gradient over the depth could not be computed")
    verbs = [_verb(one) for one in known]
    # If all networks have the same verb, it is written once.
    said = [
        Said(
            "{verb} {times} in {network}"
            if place == 0 or len(set(verbs)) > 1
            else "{times} in {network}",
            verb=Said(verb),
            times=_times(one),
            network=one.network,
        )
        for place, (verb, one) in enumerate(zip(verbs, known, strict=True))
    ]
    return Said("From the last layer to the first the gradient {changes}", changes=listing(said))


def _verb(one: NetworkOverview) -> str:
    """What the gradient does over the depth; the interval decides."""
    if one.low is None or one.high is None:
        return message("changes")
    if one.high < 1:
        return message("shrinks")
    return message("grows") if one.low > 1 else message("changes by a factor")


def _times(one: NetworkOverview) -> str:
    assert one.factor is not None
    if one.low is None or one.high is None:
        return Said("{factor} times (no interval)", factor=number(one.factor))
    if one.low <= 1 <= one.high:
        return Said("between {low} and {high}", low=number(one.low), high=number(one.high))
    ends = (one.factor, one.low, one.high)
    if one.high < 1:
        ends = (1 / one.factor, 1 / one.high, 1 / one.low)
    return Said(
        "{factor} times ({low} to {high})",
        factor=number(ends[0]),
        low=number(ends[1]),
        high=number(ends[2]),
    )


def _falls(shown: list[NetworkOverview]) -> str:
    tested = [one for one in shown if one.changes]
    if not tested:
        return ""
    falls = [one.marked[one.marked["change"] < 0] for one in tested]
    said = [
        Said(
            "at {count} of {changes} in {network}",
            count=Numeral(f"{len(own)}"),
            changes=plural(one.changes, "change"),
            network=one.network,
        )
        for one, own in zip(tested, falls, strict=True)
    ]
    places = listing(said)
    if all(one.re_estimated for one in tested) and any(len(own) for own in falls):
        counts = [int((~own["stale"].astype(bool)).sum()) for own in falls]
        left = listing([Numeral(f"{one}") for one in counts]) if any(counts) else Said("none")
        return Said(
            "accuracy falls beyond sampling noise {places}, {left} of them with re-estimated "
            "statistics too",
            places=places,
            left=left,
        )
    return Said("accuracy falls beyond sampling noise {places}", places=places)


def _title(shown: list[NetworkOverview]) -> str:
    """What the eye sees first: where accuracy changes, or else what the gradient does."""
    tested = [one for one in shown if one.changes]
    if not tested:
        return _gradients(shown)
    said = []
    for one in tested:
        counts = [int((one.marked["change"] < 0).sum()), int((one.marked["change"] > 0).sum())]
        parts = [plural(n, noun) for n, noun in zip(counts, ("fall", "rise"), strict=True) if n]
        said.append(
            Said(
                "{network}: {changes} of {all}",
                network=one.network,
                changes=listing(parts) if parts else Said("none"),
                all=Numeral(f"{one.changes}"),
            )
        )
    return Said("Changes of accuracy beyond sampling noise in {places}", places=Joined(said, "; "))


def _caption(shown: list[NetworkOverview], false_discovery_rate: float) -> str:
    """What is drawn, from top to bottom, in short sentences."""
    gathered = first_note(one.bins for one in shown)
    if not any(one.curves["accuracy"].notna().any() for one in shown):
        return Joined((_MAP_ALONE, _ruled(shown), gathered))
    parts = [_above(shown)]
    if any(one.changes for one in shown):
        parts.append(
            Said(
                "Triangles: changes beyond sampling noise (McNemar's exact test, adjusted after "
                "Benjamini & Hochberg within {rate}).",
                rate=share_bound(false_discovery_rate),
            )
        )
    if any(one.marked["fresh_change"].notna().any() for one in shown):
        parts.append(
            message(
                "Bars: each of these split into the change with fresh statistics (the weights) "
                "and the rest (stale statistics)."
            )
        )
    parts += [_MAP_BELOW, _ruled(shown), gathered]
    if any(one.changes for one in shown):
        parts.append(message("Vertical lines mark these changes in the map."))
    return Joined(parts)


def _above(shown: list[NetworkOverview]) -> str:
    seeds = max(one.curves["seed"].nunique() for one in shown)
    spread = message("thin lines: seeds" if seeds > 1 else "band: Wilson's 95 % interval")
    if any(one.curves["fresh"].notna().any() for one in shown):
        return Said(
            "Above: validation accuracy (solid; {spread}), and the same weights with fresh "
            "batch-norm statistics, computed anew on training images (dashed).",
            spread=spread,
        )
    return Said("Above: validation accuracy (solid; {spread}).", spread=spread)


def _ruled(shown: list[NetworkOverview]) -> str:
    if any(stage_boundaries(one.stages) for one in shown) or not any(
        one.bins.gathered or len(one.stages) > 1 for one in shown
    ):
        return message(
            "Horizontal lines separate output shapes: between these, sizes do not compare."
        )
    return ""


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
