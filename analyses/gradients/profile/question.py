"""Do the gradients vanish or explode on their way from the loss to the first layer?

The factor per layer compares only layers of equal output shape. Vanishing is contradicted if its
product over the whole depth stays above one hundredth. The health check tests whether gradients are
shattered, dead or healthy; the table by epoch here has the answer at each epoch.
"""

import pandas as pd

from analyses.gradients.profile.figures import gradient_figures
from analyses.gradients.profile.findings import flow_sentence, gradient_finding, gradient_sentence
from analyses.gradients.profile.measure import GradientProfile, factor_over_depth, gradient_profile
from analyses.gradients.profile.tables import epoch_table, network_table
from analyses.health import (
    NotAsked,
    Thresholds,
    Unasked,
    condition_finding,
    dead_answer,
    overall_finding,
    shattering_answer,
)
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis
from analyses.result import AnalysisResult, Finding, Table
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from gradflow.runs.reading.run import Experiment, Run

HEALTHY_FLOW = "The flow of gradients[ in {}] can be called healthy."
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
    experiment: Experiment,
    vanishing: float = Thresholds.vanishing,
    exploding: float = Thresholds.exploding,
) -> AnalysisResult:
    """Compute the factor per layer toward the input, by network and epoch.

    `vanishing` and `exploding` bound the factor over the whole depth. The defaults are two orders
    of magnitude: at equal weights, plain gradient descent then moves the first layer less than a
    hundredth as far as the last, or over a hundred times as far. No one learning rate suits both.

    Raises `NotApplicableError` if no run recorded gradients at two layers with weights.
    """
    networks = by_network(runs_with(experiment, "gradients", "gradients by layer"))
    bounds = Thresholds(vanishing=vanishing, exploding=exploding)
    profiles = [gradient_profile(name, runs) for name, runs in networks.items()]
    together = {
        "vanish": flow_sentence(profiles, bounds),
        "explode": gradient_sentence(profiles, "explode", exploding),
    }
    return AnalysisResult(
        summary=together["vanish"],
        findings=tuple(
            gradient_finding(one, verb, bound)
            for one in profiles
            for verb, bound in (("vanish", vanishing), ("explode", exploding))
        ),
        figures=gradient_figures(
            experiment.networks,
            profiles,
            (vanishing, exploding),
            _title(profiles),
            by_step=experiment.is_own,
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
            "power of the number of convolutions (or linear layers). The interval is a "
            "moving-block bootstrap over steps of the mean log factor, or Student's over three "
            "and more seeds. The same factor is computed for the gradients of the layers' "
            "weights. At each epoch gradients are dead or shattered by the rules of the health "
            "check; otherwise they are vanishing, exploding or healthy by the interval of their "
            "factor."
        ),
        sources=SOURCES,
        together=together,
    )


def flow_findings(
    experiment: Experiment,
    vanishing: float = Thresholds.vanishing,
    exploding: float = Thresholds.exploding,
) -> tuple[Finding, ...]:
    """Whether the gradients vanish, explode, are shattered or are dead; healthy if none of these.

    Answers what each network has data for, "healthy" last. A report takes the first two from here,
    and the others from the health check, which tests them together with further conditions.

    Raises `NotApplicableError` if no run recorded gradients at two layers with weights.
    """
    networks = by_network(runs_with(experiment, "gradients", "gradients by layer"))
    bounds = Thresholds(vanishing=vanishing, exploding=exploding)
    return tuple(
        finding
        for name, runs in networks.items()
        for finding in _answers(gradient_profile(name, runs), runs, bounds).values()
    )


def _answers(one: GradientProfile, runs: list[Run], bounds: Thresholds) -> dict[str, Finding]:
    found = {
        "vanishing": gradient_finding(one, "vanish", bounds.vanishing),
        "exploding": gradient_finding(one, "explode", bounds.exploding),
    }
    readings = {
        "shattered": [(run, shattering_answer(run, bounds.shattered)) for run in runs],
        "dead": [(run, dead_answer(run, bounds.dead, bounds.last_steps)) for run in runs],
    }
    silent = []
    for name, members in readings.items():
        known = [(run, one) for run, one in members if not isinstance(one, NotAsked)]
        if known:
            found[name] = condition_finding(one.network, name, known)
        else:
            silent += [one for _, one in members if isinstance(one, NotAsked)][:1]
    unasked = Unasked(tuple(silent))
    healthy = overall_finding(one.network, found, unasked, hypothesis=HEALTHY_FLOW)
    return {**found, "healthy": healthy}


def _title(profiles: list[GradientProfile]) -> str:
    said = [
        f"{number(total)} times in {one.network}"
        for one in profiles
        if (total := factor_over_depth(one)[0]) is not None
    ]
    if not said:
        return "No factor of the gradient norm per layer could be computed"
    return f"From the last layer to the first the gradient norm changes {listing(said)}"


ANALYSIS = Analysis(
    key="gradient_profile",
    title="Gradients by depth",
    question="Do the gradients vanish or explode on their way from the loss to the first layer?",
    run=run,
    background=(
        "The gradient is passed back through the layers by repeated multiplication: a "
        "factor below 1 at each layer makes it vanish toward the input, one above 1 makes "
        "it explode."
    ),
    order=80,
)
