"""Do the gradients vanish on their way from the loss to the first layer, or are they otherwise ill?

Five answers: vanishing, exploding, shattered, dead, healthy. What would count against vanishing: a
factor per layer, compared between layers of equal output shape only, whose product over the whole
depth stays above one hundredth.
"""

import numpy as np
import pandas as pd

from analyses.frames import by_network, runs_with
from analyses.gradient_figures import gradient_figures
from analyses.gradient_tables import classify, epoch_table, network_table
from analyses.health_conditions import Thresholds
from analyses.health_findings import condition_finding, overall_finding
from analyses.health_flow import shattering_reading
from analyses.health_units import dead_reading
from analyses.layer_gradients import (
    EXPLODING,
    VANISHING,
    Profile,
    exponential,
    over_depth,
    profile,
    raw_ratio,
)
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.statistics import verdict_above, verdict_below
from analyses.wording import between, finite, listing, number, percent, plural, slug
from gradflow.runs.reader import Experiment, Run

NOT_FAIR = (
    "The raw ratio of norms compares tensors of different size, so it is not a fair measure of "
    "vanishing; the factor per layer is."
)
SCALE = (
    "Where normalization follows a layer, the gradient at its output is in inverse proportion to "
    "the scale of that output, which weights of unequal norm change from layer to layer."
)
WEIGHTS = (
    "Gradients of weights cannot stand in for those of outputs: in a linear regime they stay level "
    "while these vanish (Glorot & Bengio 2010)."
)
SOURCES = (
    "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward "
    "neural networks (weight gradients can look level while these vanish)",
    "He et al. 2015, Deep residual learning for image recognition, section 4.1",
    "Yang et al. 2019, A mean field theory of batch normalization, theorem 8",
    "He et al. 2015, Delving deep into rectifiers (factor from the initial weights)",
    "Balduzzi et al. 2017, The shattered gradients problem",
    "Politis & Romano 1992, A circular block-resampling procedure for stationary data",
    "Carlstein 1986, The use of subseries values (length of blocks)",
)


def run(
    experiment: Experiment, vanishing: float = VANISHING, exploding: float = EXPLODING
) -> AnalysisResult:
    """Factor per layer toward the input, by network and epoch; and whether units let it through.

    `vanishing` and `exploding` bound the factor over the whole depth. Two orders of magnitude: at
    equal weights, plain gradient descent then moves the first layer less than a hundredth as far
    as the last, or over a hundred times as far, so that no one learning rate suits both.

    Raises `NotApplicableError` where no run recorded gradients at two layers with weights.
    """
    networks = by_network(runs_with(experiment, "gradients", "gradients by layer"))
    bounds = Thresholds(vanishing=vanishing, exploding=exploding)
    profiles = [profile(name, runs) for name, runs in networks.items()]
    answers = [_answers(one, networks[one.network], bounds) for one in profiles]
    summary = " ".join(_sentence(one, vanishing, exploding) for one in profiles)
    others = [
        finding.meaning
        for found in answers
        for name, finding in found.items()
        if name in ("shattered", "dead") and finding.verdict is Verdict.SUPPORTED
    ]
    return AnalysisResult(
        summary=" ".join((summary, *others)),
        findings=tuple(finding for found in answers for finding in found.values()),
        figures=gradient_figures(
            experiment.networks, profiles, (vanishing, exploding), _title(profiles)
        ),
        tables=(
            Table("networks", "Gradient profile of each network", network_table(profiles)),
            Table(
                "epochs",
                "Factor per layer toward the input, by epoch",
                pd.concat([epoch_table(one, networks[one.network], bounds) for one in profiles]),
            ),
        ),
        method=(
            "At each step the logarithm of the norm of the gradient with respect to a layer's "
            "output is regressed on depth, with one slope for the whole network and an intercept "
            "for each group of layers of equal output shape (groups of three layers and more): "
            "factor per layer toward the input = exp(-slope). Over the depth: that factor to the "
            "power of the number of convolutions. The interval is a moving-block bootstrap over "
            "steps of the mean log factor, or Student's over three and more seeds. The same of "
            "the gradients of the layers' weights stands beside. Shattered and dead are judged as "
            "in the health check; healthy is a network with none of the conditions asked for."
        ),
        sources=SOURCES,
    )


def _answers(one: Profile, runs: list[Run], bounds: Thresholds) -> dict[str, Finding]:
    """The finding for each of the five answers that the runs recorded enough to give."""
    found = {
        "vanishing": _finding(one, "vanish", bounds.vanishing),
        "exploding": _finding(one, "explode", bounds.exploding),
    }
    readings = {
        "shattered": [(run, shattering_reading(run, bounds.shattered)) for run in runs],
        "dead": [(run, dead_reading(run, bounds.dead, bounds.last_steps)) for run in runs],
    }
    for name, members in readings.items():
        known = [(run, reading) for run, reading in members if reading is not None]
        if known:
            found[name] = condition_finding(one.network, name, known)
    left_out = [name for name in readings if name not in found]
    subject = "the flow of gradients in {}"
    return {**found, "healthy": overall_finding(one.network, found, left_out, subject)}


def _finding(one: Profile, verb: str, bound: float) -> Finding:
    per_layer = bound ** (1 / one.depth)
    rule = verdict_below if verb == "vanish" else verdict_above
    low, high = exponential(one.overall.low), exponential(one.overall.high)
    verdict = rule(finite(low), finite(high), per_layer)
    side = "below" if verb == "vanish" else "above"
    return Finding(
        key=slug(f"{verb}-{one.network}"),
        network=one.network,
        hypothesis=f"The gradients of {one.network} {verb} toward the input.",
        contradicted_by=(
            f"A factor per layer whose interval lies {'above' if verb == 'vanish' else 'below'} "
            f"{number(per_layer)}."
        ),
        verdict=verdict,
        estimates=_estimates(one),
        threshold=(
            f"supported where the 95 % interval of the factor per layer lies {side} "
            f"{number(per_layer)}, which is {number(bound)} over {one.depth} layers"
        ),
        meaning=_meaning(one, verb, verdict),
        next_step=_next_step(one, verb, verdict),
        caveats=_caveats(one),
    )


def _estimates(one: Profile) -> tuple[Estimate, ...]:
    value, low, high = (
        finite(exponential(log)) for log in (one.overall.value, one.overall.low, one.overall.high)
    )
    total, total_low, total_high = over_depth(one)
    per_layer = "factor of the gradient norm per layer toward the input"
    estimates = [
        Estimate(per_layer, value, low, high, method=one.overall.method),
        Estimate(
            f"factor over all {one.depth} layers", total, total_low, total_high,
            method="the factor per layer to the power of the number of layers",
        ),
        Estimate(
            "the same of the gradients of the weights, which cannot tell vanishing",
            *over_depth(one, weights=True), method=one.weight_overall.method,
        ),
        Estimate(
            "raw norm at the first layer over that at the last", raw_ratio(one),
            method="ratio of medians over steps; not scale-fair, no interval",
        ),
    ]  # fmt: skip
    if one.first is not None:
        against = ""
        if one.theory is not None:
            against = f"; theory ({one.theory.name}): {number(one.theory.factor)}"
        estimates.append(
            Estimate(
                f"{per_layer}, first step", one.first, method=f"one step, no interval{against}"
            )
        )
    return tuple(estimates)


def _meaning(one: Profile, verb: str, verdict: Verdict) -> str:
    total, low, high = over_depth(one)
    if total is None:
        return (
            f"Whether the gradients of {one.network} {verb} cannot be told: no three layers of "
            f"equal output shape had finite gradients other than zero ({_zeros(one)})."
        )
    words = {
        Verdict.SUPPORTED: f"The gradients of {one.network} {verb} toward the input",
        Verdict.CONTRADICTED: f"The gradients of {one.network} do not {verb} toward the input",
        Verdict.INCONCLUSIVE: f"Whether the gradients of {one.network} {verb} cannot be told",
    }
    return (
        f"{words[verdict]}: at equal output shape their norm changes by a factor of "
        f"{number(total)} {between(low, high)} over {one.depth} layers."
    )


def _zeros(one: Profile) -> str:
    share = float(np.mean([seed.zeros for seed in one.seeds]))
    return f"{percent(share)} of the recorded gradients are exactly zero"


def _sentence(one: Profile, vanishing: float, exploding: float) -> str:
    total, low, high = over_depth(one)
    if total is None:
        return _meaning(one, "vanish", Verdict.INCONCLUSIVE)
    state = classify(low, high, vanishing, exploding)
    words = {
        "vanishing": "vanish",
        "exploding": "explode",
        "healthy": "neither vanish nor explode",
        "unclear": "cannot be called vanishing, exploding or healthy",
    }
    return (
        f"The gradients of {one.network} {words[state]}: from the last layer to the first they "
        f"change by a factor of {number(total)} {between(low, high)}."
    )


def _title(profiles: list[Profile]) -> str:
    said = [
        f"{number(total)} times in {one.network}"
        for one in profiles
        if (total := over_depth(one)[0]) is not None
    ]
    if not said:
        return "No factor of the gradient norm per layer could be had"
    return f"From the last layer to the first the gradient norm changes {listing(said)}"


def _next_step(one: Profile, verb: str, verdict: Verdict) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        return "Record more steps, or several seeds, to narrow the interval."
    if verdict is Verdict.SUPPORTED:
        cure = "He initialization, normalization or shortcuts" if verb == "vanish" else (
            "gradient clipping, a warm-up of the learning rate or shortcuts"
        )  # fmt: skip
        return f"Try {cure}, and see whether accuracy changes with the gradients."
    return f"Look for another cause of what {one.network} does: this one is not it."


def _caveats(one: Profile) -> tuple[str, ...]:
    caveats = [NOT_FAIR, WEIGHTS]
    if any(seed.zeros for seed in one.seeds):
        caveats.append(
            f"{_zeros(one)}: a zero has no logarithm and is left out of the factor; it may mean "
            "dead units, or a branch that starts closed."
        )
    broken = sum(seed.nonfinite for seed in one.seeds)
    if broken:
        caveats.append(f"In {plural(broken, 'step')} some gradient was infinite or not a number.")
    if one.theory is not None:
        caveats += [SCALE] if "norm" in one.theory.name else []
        caveats.append(one.theory.words)
    return tuple(caveats)


ANALYSIS = Analysis(
    key="gradient_profile",
    title="Gradient profile",
    question="Do the gradients vanish on their way to the first layer, or are they otherwise ill?",
    run=run,
)
